"""probe=eos on CUDA measures what it measures on the CPU, to 1e-4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from vrbench.app.check import Kit

pytestmark = pytest.mark.gpu

KEYS = ("sharpness", "preconditioned_sharpness", "threshold", "ratio")


def measured(kit: Kit, device: torch.device, overrides: tuple[str, ...], matrix: Any) -> dict[str, float]:
    """The probe's row after the third step of a run from seed 0."""
    from unlogged import trainer_of
    from vrbench.optimizers import VRAdam

    from vrbench.probes.edge_of_stability import EdgeOfStability

    probe = EdgeOfStability("standard", 3, None, 64, 64, 1e-6, 300, 5, 8, 16, matrix)
    trainer = trainer_of(kit.task_part(*overrides), VRAdam, device, probes={"eos": probe})
    rows = [trainer._train_step() for _ in range(3)]
    assert rows[:2] == [{}, {}]
    return rows[2]


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
@pytest.mark.parametrize(
    "overrides",
    [
        ("task=digits",),
        ("task=mnist", "model.channels=[8,16]", "model.hidden=16"),  # convolutions, batch normalisation
        ("task=pydoc", "model.dropout=0.0"),  # attention; dropout would be drawn by other generators
        ("task=pydoc", "model=lstm", "model.dropout=0.0"),
    ],
    ids=" ".join,
)
def test_the_probe(overrides: tuple[str, ...], matrix: str, kit: Kit, cuda: torch.device) -> None:
    import torch

    there, here = (measured(kit, device, overrides, matrix) for device in (cuda, torch.device("cpu")))
    assert here.keys() == there.keys()
    for key in KEYS:
        assert there[f"eos/{key}"] == pytest.approx(here[f"eos/{key}"], rel=1e-4)
