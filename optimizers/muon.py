"""Muon on the matrices of a model, AdamW on all else: the split that Muon leaves to its user."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer


def muon(
    params: Iterable[Tensor] | Iterable[dict[str, Any]],
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    ns_steps: int,
    weight_decay: float,
    use_adjusted_lr: bool,
    adamw_lr: float,
    adamw_betas: tuple[float, float],
    adamw_eps: float,
    adamw_wd: float,
    foreach: bool | None,
    maximize: bool,
) -> Optimizer:
    """pytorch_optimizer's Muon over groups split by shape.

    Muon orthogonalises the update of a matrix (K. Jordan et al. 2024; arXiv 2502.16982 scales it). Parameters with two
    or more dimensions get it, kernels of convolutions as (out, in*k*k) matrices; vectors and scalars get AdamW with the
    `adamw_*` settings. A group that states `use_muon` itself is kept whole: that is the way to put embeddings and
    output layers on AdamW, as Muon's authors advise. What a group states for itself (`lr`, `weight_decay`) holds for
    all of its parameters; `lr` and `weight_decay` here are for the matrices of groups that state none.

    Raises:
        ValueError: there are no parameters, or a hyperparameter is out of range.
    """
    from pytorch_optimizer import Muon

    given: list[Any] = list(params)
    groups = given if given and isinstance(given[0], dict) else [{"params": given}]
    split = [part for group in groups for part in by_shape(group)]
    if not split:
        raise ValueError("params is empty: muon needs at least one parameter")
    return Muon(
        split,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        ns_steps=ns_steps,
        weight_decay=weight_decay,
        use_adjusted_lr=use_adjusted_lr,
        adamw_lr=adamw_lr,
        adamw_betas=adamw_betas,
        adamw_eps=adamw_eps,
        adamw_wd=adamw_wd,
        foreach=foreach,
        maximize=maximize,
    )


def by_shape(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Matrices and the rest of one group, each with `use_muon` set; a part without parameters is left out."""
    params = group["params"]
    params = [params] if isinstance(params, Tensor) else list(params)
    if "use_muon" in group:
        return [{**group, "params": params}]
    settings = {name: value for name, value in group.items() if name != "params"}
    matrices = [p for p in params if p.ndim >= 2]
    others = [p for p in params if p.ndim < 2]
    parts = [{**settings, "params": matrices, "use_muon": True}, {**settings, "params": others, "use_muon": False}]
    return [part for part in parts if part["params"]]
