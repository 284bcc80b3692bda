"""The contract of a probe: vrbench.contracts.Probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vrbench.checks.contract import check_arguments, require, same
from vrbench.checks.short_run import Written, numbers, parameters_of, train
from vrbench.checks.tasks import TaskPart
from vrbench.contracts import Probe

STEPS, STOP = 8, 5
OTHERS = ("train", "val", "test", "step", "epoch")
"""First parts of keys that are not a probe's to write."""


@dataclass(frozen=True)
class ProbePart:
    """The probes of a YAML, and a run to carry them."""

    make: Callable[[], dict[str, Probe]]
    targets: Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]]
    """Of each probe: what its YAML names, and its arguments."""
    task: TaskPart
    make_optimizer: Callable[..., torch.optim.Optimizer]

    def run(
        self, probes: dict[str, Probe], state: dict[str, Any] | None = None, stop_after: int | None = None
    ) -> tuple[Written, Any]:
        """A short run with these probes: what it wrote, and its last weights."""
        task = self.task.fresh()
        model = self.task.model(task)
        optimizer = self.make_optimizer(parameters_of(task, model))
        written = train(task, model, optimizer, STEPS, probes, state=state, stop_after=stop_after)
        return written, model.state_dict()


def _training(written: Written) -> list[dict[str, Any]]:
    """Rows as a run without probes has them: what a probe writes may stand in rows of its own."""
    rows = [{key: value for key, value in row.items() if key.split("/")[0] in OTHERS} for row in written.rows]
    return [row for row in rows if row.keys() - {"step", "epoch"}]


def states_every_argument(part: ProbePart) -> None:
    """The YAML leaves no default in the dark, and states nothing that the target does not take."""
    for target, settings in part.targets.values():
        check_arguments(target, settings, ("self",))


def changes_no_training_number(part: ProbePart) -> None:
    """With it and without it the losses, the validation, the test and the weights are the same, bit for bit."""
    (bare, weights), (probed, same_weights) = part.run({}), part.run(part.make())
    require(same(_training(probed), _training(bare)), "with the probe the run has other losses")
    require(same(weights, same_weights), "with the probe the run ends at other weights")
    require(same(probed.summary["metrics"], bare.summary["metrics"]), "with the probe the run has another summary")


def writes_floats_under_keys_of_its_own(part: ProbePart) -> None:
    """Every key has a prefix that is no other's, every value is a float."""
    probes = part.make()
    written, _ = part.run(probes)
    told = [{k: v for k, v in row.items() if k.split("/")[0] not in (*OTHERS, "time")} for row in written.rows]
    for row in told:
        for key, value in row.items():
            require("/" in key, f"key {key} has no prefix")
            require(isinstance(value, float), f"{key} is a {type(value).__name__} and no float")
    require(any(told) or not probes, f"in {STEPS} steps it has measured nothing")


def resumes_bit_for_bit(part: ProbePart) -> None:
    """Its state goes through a file that is read with weights_only=True, and it goes on as if unbroken."""
    whole, _ = part.run(part.make())
    broken, _ = part.run(part.make(), stop_after=STOP)
    resumed, _ = part.run(part.make(), state=broken.state)
    rows = numbers([*broken.rows, *resumed.rows])
    require(same(rows, numbers(whole.rows)), f"resumed after {STOP} of {STEPS} steps, it writes other numbers")


PROPERTIES = (
    states_every_argument,
    changes_no_training_number,
    writes_floats_under_keys_of_its_own,
    resumes_bit_for_bit,
)
