"""NorMuon (arXiv 2510.05491) on the matrices of a model, AdamW on all else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from .muon import by_shape


def normuon(params: Iterable[Tensor] | Iterable[dict[str, Any]], **settings: Any) -> Optimizer:
    """pytorch_optimizer's NorMuon over groups split by shape, as `vrbench.optimizers.muon.muon` splits them.

    NorMuon is Muon whose orthogonalised update is normalised row by row with a second moment of each row.

    Raises:
        ValueError: there are no parameters, or a setting of the library is out of range.
    """
    from pytorch_optimizer import NorMuon

    given: list[Any] = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    split = [part for group in groups for part in by_shape(group)]
    if not split:
        raise ValueError("params is empty: normuon needs at least one parameter")
    return NorMuon(split, **settings)
