"""The contract of a model: any `make(input_shape, output_dim)` that gives a torch.nn.Module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from vrbench.checks.contract import Absent, Broken, check_arguments, require, same
from vrbench.checks.short_run import SEED, parameters_of, through_file
from vrbench.checks.tasks import seeded
from vrbench.contracts import Batch, Task
from vrbench.randomness import Streams

EXAMPLES = 4


@dataclass(frozen=True)
class ModelPart:
    """A model as its YAML has it, and tasks to try it in."""

    make: Callable[[tuple[int, ...], int], nn.Module]
    target: Callable[..., Any]
    settings: Mapping[str, Any]
    tasks: Callable[[], Iterator[tuple[str, Callable[[], Task]]]]
    """Names of tasks and what makes them, the likeliest first; the model has to do for one of them."""

    def model(self, task: Task, seed: int = SEED) -> nn.Module:
        """The model for a task, its weights drawn from this seed."""
        Streams(seed).reseed_global("init")
        return self.make(task.input_shape, task.output_dim)

    @cached_property
    def task(self) -> Task:
        """The first task that the model does for. Raises Broken where it does for none."""
        reasons = []
        for name, make in self.tasks():
            try:
                task = make()
                task.to(torch.device("cpu"))
            except Absent as absent:
                reasons.append(f"{name} ({absent})")
                continue
            try:
                loss(task, self.model(task).eval(), batch_of(task))
            except Absent:
                raise
            except Exception as error:
                reasons.append(f"{name} ({type(error).__name__}: {str(error).strip().splitlines()[0][:120]})")
                continue
            return task
        raise Broken(f"it does for none of the tasks {'; '.join(reasons)}")


def batch_of(task: Task) -> Batch:
    return task.probe_batches(EXAMPLES, EXAMPLES)[0][1]


def loss(task: Task, model: nn.Module, batch: Batch) -> torch.Tensor:
    return task.loss(model, batch, seeded(0))[0]


# ---- the properties -------------------------------------------------------------------------------------------------


def states_every_argument(part: ModelPart) -> None:
    """The YAML leaves no default in the dark, and states nothing that the target does not take."""
    check_arguments(part.target, part.settings, ("self", "input_shape", "output_dim"))


def does_for_a_task(part: ModelPart) -> None:
    """Built from a task's `input_shape` and `output_dim`, it gives that task a finite loss."""
    model = part.model(part.task)
    require(isinstance(model, nn.Module), f"it is a {type(model).__name__} and no torch.nn.Module")
    require(any(p.requires_grad for p in model.parameters()), "it has no parameter to train")
    value = loss(part.task, model.eval(), batch_of(part.task)).detach()
    require(bool(value.isfinite()), f"its loss before training is {float(value)}")


def starts_from_its_seed(part: ModelPart) -> None:
    """One seed, one set of initial weights, bit for bit."""
    first, second = (part.model(part.task).state_dict() for _ in range(2))
    require(same(first, second), "two of one seed start from other weights: some draw is not from torch's generator")


def gradients_reach_every_parameter(part: ModelPart) -> None:
    """Every parameter that is trained gets a finite gradient from one loss."""
    model = part.model(part.task).train()
    parameters_of(part.task, model)
    loss(part.task, model, batch_of(part.task)).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    require(not without, f"the loss does not depend on {', '.join(without)}")
    wrong = [name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    require(not wrong, f"the gradient of {', '.join(wrong)} is not finite")


def its_state_is_the_whole_of_it(part: ModelPart) -> None:
    """`state_dict` goes through a file that is read with weights_only=True into a model that started elsewhere."""
    model, other = part.model(part.task, 1).eval(), part.model(part.task, 2)
    other.load_state_dict(through_file(model.state_dict()))
    batch = batch_of(part.task)
    with torch.no_grad():
        found = loss(part.task, model, batch), loss(part.task, other.eval(), batch)
    require(
        same(*found), f"with the same state_dict two models have the losses {float(found[0])} and {float(found[1])}"
    )


def evaluates_the_same_every_time(part: ModelPart) -> None:
    """In eval mode it draws nothing, whatever torch's own seed is, and changes nothing of itself."""
    model = part.model(part.task).eval()
    before = through_file(model.state_dict())
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            found.append(loss(part.task, model, batch_of(part.task)))
    require(same(*found), "in eval mode one batch has two losses")
    require(same(before, model.state_dict()), "in eval mode a forward pass changes its state")


PROPERTIES = (
    states_every_argument,
    does_for_a_task,
    starts_from_its_seed,
    gradients_reach_every_parameter,
    its_state_is_the_whole_of_it,
    evaluates_the_same_every_time,
)
