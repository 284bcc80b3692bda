"""The contract of a task: vrbench.contracts.Task."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vrbench.checks.contract import check_arguments, require, same
from vrbench.checks.short_run import SEED, numbers, parameters_of, through_file, train
from vrbench.contracts import Batch, Share, Task
from vrbench.randomness import Streams

CPU = torch.device("cpu")
SPLITS = ("train", "val", "test")
FEW, CHUNK = 8, 3
"""Examples of a probe set, and of a chunk of it."""
STEPS, STOP = 4, 2
"""Steps of a training, and where it is broken off and resumed."""
_WHOLE = 10**6


@dataclass(frozen=True)
class TaskPart:
    """A task as its YAML has it, with the model that is chosen for it."""

    make: Callable[[], Task]
    target: Callable[..., Any]
    settings: Mapping[str, Any]
    make_model: Callable[[tuple[int, ...], int], nn.Module]
    """`make_model(input_shape, output_dim)`."""
    make_data: Callable[[], Any] | None
    """What the task's argument `data` is built from; None where it has none."""

    @cached_property
    def task(self) -> Task:
        """The task, built once: only what `fresh` gives is trained."""
        return self.fresh()

    def fresh(self) -> Task:
        """Another one."""
        task = self.make()
        task.to(CPU)
        return task

    def model(self, task: Task) -> nn.Module:
        """The model for a task, the same one at every call."""
        Streams(SEED).reseed_global("init")
        return self.make_model(task.input_shape, task.output_dim)


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def epoch(task: Task, seed: int, start: int = 0, most: int | None = None, **share: Share) -> list[Batch]:
    """The first batches of an epoch, with the augmentation re-seeded for each as the trainer does it."""
    augment = seeded(start)
    found: list[Batch] = []
    for number, batch in enumerate(task.train_batches(seeded(seed), augment, start, **share), start):
        found.append(batch)
        augment.manual_seed(number + 1)
        if most is not None and len(found) == most:
            break
    return found


def scalar(loss: Tensor) -> float:
    return float(loss.detach())


def measured(task: Task, model: nn.Module, split: Any) -> dict[str, float]:
    """The metrics of a split, as the trainer takes them: in eval mode and without gradients."""
    with torch.no_grad():
        return task.evaluate(model.eval(), split)


# ---- the properties -------------------------------------------------------------------------------------------------


def states_every_argument(part: TaskPart) -> None:
    """The YAML leaves no default in the dark, and states nothing that the target does not take."""
    check_arguments(part.target, part.settings, ("self",))


def says_what_it_is(part: TaskPart) -> None:
    """Name, primary metric and its direction, shapes, and the length of an epoch."""
    task = part.task
    require(isinstance(task.name, str) and task.name, f"name={task.name!r}: has to be a text")
    require(task.metric.startswith("val/"), f"metric={task.metric}: has to be one of the validation split, val/…")
    require(task.direction in ("min", "max"), f"direction={task.direction}: has to be min or max")
    shape = task.input_shape
    whole = isinstance(shape, tuple) and shape and all(isinstance(side, int) and side > 0 for side in shape)
    require(whole, f"input_shape={shape}: has to be a tuple of sizes above 0")
    require(isinstance(task.output_dim, int) and task.output_dim > 0, f"output_dim={task.output_dim}: is no size")
    batches = task.batches_per_epoch
    require(isinstance(batches, int) and batches > 0, f"batches_per_epoch={batches}: has to be a number above 0")
    units = task.units_per_batch
    counted = units and all(isinstance(count, int) and count > 0 for count in units.values())
    require(counted, f"units_per_batch={units}: has to name what a batch holds, and how many")


def splits_are_disjoint(part: TaskPart) -> None:
    """No example of `data` stands in two splits, and an evaluation shows the model none of those that it is trained on.

    One in a hundred of those shown may be alike by chance, as two short pieces of text are. Tasks without an argument
    `data` make their examples: there is nothing to hold out.
    """
    if part.make_data is None:
        return
    kept = _examples(part.make_data())
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        both = len(kept.get(one, set()) & kept.get(other, set()))
        require(not both, f"{both} examples of {one} stand in {other} too")
    task = part.fresh()
    model = part.model(task)
    trained = _shown(model, lambda: [_loss(task, model, batch) for _, batch in task.probe_batches(_WHOLE, 256)])
    for split in ("val", "test"):
        shown = _shown(model, lambda: measured(task, model, split))  # noqa: B023
        both = len(trained & shown)
        require(100 * both <= len(shown), f"{both} of {len(shown)} inputs of {split} are those of training")


def _examples(data: Any) -> dict[str, set[bytes]]:
    """The examples of each split, where data have `images`, or a list of examples for each split."""
    splits = getattr(data, "images", None)
    if not isinstance(splits, Mapping):
        splits = {split: getattr(data, split) for split in SPLITS if hasattr(data, split)}
    return {split: {_bytes(one) for one in splits[split]} for split in splits}


def _shown(model: nn.Module, look: Callable[[], object]) -> set[bytes]:
    """The examples that a model is called with: rows of the first tensor of each call."""
    found: set[bytes] = set()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, Tensor)]
        if tensors and tensors[0].ndim > 0:
            found.update(_bytes(row) for row in tensors[0])

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        look()
    finally:
        hook.remove()
    return found


def _bytes(example: Any) -> bytes:
    return example.contiguous().numpy().tobytes() if isinstance(example, Tensor) else repr(example).encode()


def batches_follow_their_generators(part: TaskPart) -> None:
    """An epoch has `batches_per_epoch` batches; the same seeds give the same ones whatever torch's own seed is."""
    task = part.task
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(epoch(task, 0))
    require(len(found[0]) == task.batches_per_epoch, f"an epoch has {len(found[0])} batches, not batches_per_epoch")
    require(same(*found), "the same generators give other batches: some draw comes from elsewhere")


def a_late_start_leaves_the_rest_as_it_is(part: TaskPart) -> None:
    """`start` leaves batches out, and the others are the same, bit for bit."""
    task = part.task
    whole = epoch(task, 0)
    for start in sorted({0, 1, len(whole) // 2, len(whole) - 1} & set(range(len(whole)))):
        require(same(epoch(task, 0, start), whole[start:]), f"from start={start} on the batches are others")


def shares_make_up_the_batch(part: TaskPart) -> None:
    """Where the task makes a part of a batch alone: two parts are the two halves of the whole one, bit for bit."""
    task = part.task
    if "share" not in inspect.signature(task.train_batches).parameters:
        return
    whole, first, second = (epoch(task, 0, most=2, share=Share(*s)) for s in ((0, 1), (0, 2), (1, 2)))
    for batch, one, other in zip(whole, first, second, strict=True):
        joined = [torch.cat(halves) for halves in zip(_tensors(one), _tensors(other), strict=True)]
        require(same(joined, list(_tensors(batch))), "the shares of two processes are not the halves of the batch")


def the_loss_is_a_scalar_to_differentiate(part: TaskPart) -> None:
    """Finite, of no dimension, with gradients that are finite; metrics are detached scalars without prefix."""
    task = part.fresh()
    model = part.model(task).train()
    parameters_of(task, model)
    for batch in (epoch(task, 0, most=1)[0], task.probe_batches(FEW, FEW)[0][1]):
        loss, metrics = task.loss(model, batch, seeded(0))
        require(
            loss.shape == () and loss.is_floating_point(), f"the loss is no scalar but of shape {tuple(loss.shape)}"
        )
        require(math.isfinite(scalar(loss)), f"the loss of an untrained model is {scalar(loss)}")
        require(loss.requires_grad, "the loss cannot be differentiated")
        model.zero_grad()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        require(gradients and any(bool(g.any()) for g in gradients), "the loss reaches no parameter")
        require(all(bool(g.isfinite().all()) for g in gradients), "a gradient is not finite")
        for key, value in metrics.items():
            plain = "/" not in key and isinstance(value, Tensor) and value.shape == () and not value.requires_grad
            require(plain, f"metric {key} has to be a detached scalar, its key without prefix")


def _loss(task: Task, model: nn.Module, batch: Batch, seed: int = 0) -> float:
    with torch.no_grad():
        return scalar(task.loss(model.eval(), batch, seeded(seed))[0])


def the_loss_draws_from_its_generator_alone(part: TaskPart) -> None:
    """The same generator gives the same loss, whatever torch's own seed is."""
    task = part.fresh()
    model = part.model(task)
    batch = epoch(task, 0, most=1)[0]
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(_loss(task, model, batch))
    require(found[0] == found[1], f"one generator gives the losses {found}: some noise comes from elsewhere")


def evaluation_is_the_same_every_time(part: TaskPart) -> None:
    """On either split: `loss` and the primary metric among finite numbers, whatever torch's own seed is; no trace."""
    task = part.fresh()
    model = part.model(task)
    parameters_of(task, model)
    before = through_file(model.state_dict())
    for split in ("val", "test"):
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(measured(task, model, split))
        for key, value in found[0].items():
            require(
                "/" not in key and isinstance(value, float), f"{split}: {key}={value!r}: no float, or a prefix in it"
            )
        require(
            {"loss", task.metric.removeprefix("val/")} <= found[0].keys(), f"{split}: has only {', '.join(found[0])}"
        )
        require(same(*found), f"{split}: measured twice it is {found[0]} and {found[1]}")
    require(same(before, model.state_dict()), "evaluating has changed the model")
    require(all(p.grad is None for p in model.parameters()), "evaluating leaves gradients in the model")


def the_probe_set_is_fixed(part: TaskPart) -> None:
    """The first training examples, in chunks; weights add up to 1, and weigh the chunks' losses to that of the set."""
    task = part.fresh()
    model = part.model(task)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(task.probe_batches(FEW, CHUNK))
    require(same(*found), "asked twice, the probe set is another one")
    weights = [weight for weight, _ in found[0]]
    require(math.isclose(sum(weights), 1, rel_tol=1e-6), f"the chunks' weights add up to {sum(weights)}")
    sizes = [_size(batch) for _, batch in found[0]]
    require(max(sizes) <= CHUNK, f"chunks of at most {CHUNK} examples have {sizes}")
    (one,) = task.probe_batches(FEW, FEW)
    require(_size(one[1]) == sum(sizes) <= FEW, f"{FEW} examples at once are {_size(one[1])}, in chunks {sum(sizes)}")
    if _loss(task, model, one[1], 0) == _loss(task, model, one[1], 1):  # no noise in the loss
        whole, parts = _loss(task, model, one[1]), sum(weight * _loss(task, model, batch) for weight, batch in found[0])
        require(
            math.isclose(whole, parts, rel_tol=1e-4, abs_tol=1e-6), f"the set's loss is {whole}, its chunks' {parts}"
        )


def _size(batch: Batch) -> int:
    return len(next(_tensors(batch)))


def _tensors(batch: Batch) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    for one in batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else ():
        yield from _tensors(one)


def its_groups_hold_every_parameter_once(part: TaskPart) -> None:
    """Where the task makes parameter groups: all that is trained is in one of them."""
    task = part.fresh()
    if not hasattr(task, "param_groups"):
        return
    model = part.model(task)
    grouped = [id(p) for group in task.param_groups(model) for p in group["params"]]
    require(len(set(grouped)) == len(grouped), "a parameter stands in two groups")
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    require(trained <= set(grouped), "a parameter that requires gradients is in no group")


def its_picture_is_the_same_every_time(part: TaskPart) -> None:
    """Where the task renders: uint8 of shape (height, width, 3)."""
    task = part.fresh()
    if not hasattr(task, "render"):
        return
    model = part.model(task).eval()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            found.append(task.render(model))
    shape = tuple(found[0].shape)
    right = found[0].dtype == torch.uint8 and len(shape) == 3 and shape[2] == 3
    require(right, f"a picture has to be uint8 (height, width, 3), and is {found[0].dtype} {shape}")
    require(same(*found), "drawn twice, the picture is another one")


def trains_and_resumes_bit_for_bit(part: TaskPart) -> None:
    """A few steps of SGD end in a test score; broken off and resumed from a file they come to the same numbers."""

    def run(state: dict[str, Any] | None = None, stop_after: int | None = None) -> Any:
        task = part.fresh()
        model = part.model(task)
        optimizer = torch.optim.SGD(parameters_of(task, model), lr=1e-3)
        written = train(task, model, optimizer, STEPS, state=state, stop_after=stop_after)
        return written, model.state_dict()

    whole, weights = run()
    metric = part.task.metric
    ended = whole.summary
    require(ended.get("status") == "finished", f"{STEPS} steps of SGD at 1e-3 end as {ended.get('status')}")
    wanted = {metric, "val/loss", f"test/{metric.removeprefix('val/')}"}
    require(wanted <= ended["metrics"].keys(), f"its summary has only {', '.join(ended['metrics'])}")
    broken, _ = run(stop_after=STOP)
    resumed, again = run(state=broken.state)
    require(same(again, weights), f"resumed after {STOP} of {STEPS} steps, its weights are others")
    rows = numbers([*broken.rows, *resumed.rows])
    require(same(rows, numbers(whole.rows)), f"resumed after {STOP} of {STEPS} steps, its metrics are others")


PROPERTIES = (
    states_every_argument,
    says_what_it_is,
    splits_are_disjoint,
    batches_follow_their_generators,
    a_late_start_leaves_the_rest_as_it_is,
    shares_make_up_the_batch,
    the_loss_is_a_scalar_to_differentiate,
    the_loss_draws_from_its_generator_alone,
    evaluation_is_the_same_every_time,
    the_probe_set_is_fixed,
    its_groups_hold_every_parameter_once,
    its_picture_is_the_same_every_time,
    trains_and_resumes_bit_for_bit,
)
