"""The contracts between the parts, and the plain records that travel between them.

An optimizer, a schedule, a task, a probe or a logger is any object with these attributes and methods; none of them has
to inherit from anything here. `vrbench.checks` tries each part against its contract. Everything past the command line
takes these types and never the Hydra config. Importing this module costs no torch: refusing a bad config and skipping a
finished run stay quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TypedDict

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as validated

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor, device, nn

    from vrbench.randomness import Streams

Batch = Any
"""A tensor, or a tuple or dict of tensors; leading dimension = examples. Only its task looks inside."""

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Reported(TypedDict, total=False):
    """What an optimizer may write into a parameter group with each step; each key is optional, logged as `optim/<key>`.

    Scalar tensors on the device of the parameters: writing them must not wait for it.
    """

    effective_lr: Tensor
    """The rate that moved the parameters, where it is not `lr`: VRAdam's `lr · gate`."""
    gate: Tensor
    """The factor on `lr`, above 0 and at most 1."""
    velocity_sq: Tensor
    """The squared norm that the gate was made from."""


class Optimizer(Protocol):
    """Any torch.optim.Optimizer, made as `make(params)` from parameters or parameter groups.

    `group["lr"]` is what the schedule drives; a rate of the optimizer's own making is told as `Reported` says. `step`
    leaves `p.grad` as it is and runs a closure with gradients enabled. The state round-trips through `state_dict`, and
    loads with `weights_only=True`. What the loop has to do for an optimizer beside `backward` and `step` is asked of
    its methods: vrbench.training.capabilities.
    """

    param_groups: list[dict[str, Any]]

    def step(self, closure: Any = None) -> Any:
        """Move the parameters by their gradients."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Groups and state, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` gave: the next steps are those of an unbroken run, bit for bit."""


class Schedule(Protocol):
    """The learning rate over a run: any class of torch.optim.lr_scheduler that goes by steps, or an object like one.

    Made as `make(optimizer, …)`; vrbench.training.schedules says which arguments are filled in. All parameter groups
    follow it, each from its own `lr`; no rate is ever negative.
    """

    def step(self) -> None:
        """Set the rates of the next step; called once after each step of the optimizer."""

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take back what `state_dict` gave: the rates go on as if unbroken."""


class Share(NamedTuple):
    """Which examples of each batch a process trains on: the `rank`-th of `size` equal parts, counted from 0."""

    rank: int
    size: int

    def of(self, rows: Tensor) -> Tensor:
        """This part of the rows of a whole batch. Raises ValueError where they cannot be shared evenly."""
        count = len(rows) if rows.ndim else 1
        if count % self.size:
            raise ValueError(f"batch_size={count}: cannot be shared evenly by {self.size} processes")
        return rows.chunk(self.size)[self.rank] if self.size > 1 else rows


WHOLE = Share(0, 1)


class Task(Protocol):
    """A learning problem: data, loss, metrics.

    Optional methods, asked for with `hasattr`:

    - `render(model) -> Tensor`: a picture of what the model does, uint8 of shape (height, width, 3).
    - `param_groups(model) -> list[dict]`: parameter groups where the task needs more than `model.parameters()`.
    - `state_dict()`, `load_state_dict(state)`: training state that the task itself keeps (a replay buffer, say).
    - `weight(batch) -> Tensor`: how many terms the mean loss of a batch is taken over, a scalar, where that is not the
      same for equal numbers of examples. Several processes weight the losses and metrics of their shares by it.
    """

    name: str
    metric: str
    """Key of the primary metric, with its split: `val/accuracy`. Trials and checkpoints are ranked by it."""
    direction: Literal["min", "max"]
    output_dim: int
    """Number of outputs: classes, vocabulary size, …"""
    batches_per_epoch: int
    units_per_batch: dict[str, int]
    """What a batch holds, for throughput: `{"images": 128}` is logged as `time/images_per_s`."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one model input without the batch dimension: (channels, height, width) for images."""

    def to(self, device: device) -> None:
        """Move the in-memory data to the training device, where whole batches are cut and augmented."""

    def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[Batch]:
        """One epoch of batches, `batches_per_epoch - start` of them, on the device given to `to`.

        `order` (CPU) is fresh for each epoch and decides which examples come when; `augment` (on the device) is
        re-seeded for each batch. Batches before `start` are left out without being made, and the rest are the same.

        A task that can make a part of a batch alone takes `share: Share = WHOLE` too, and yields the rows that this
        part has of the whole batches, augmented as they are there. Of others, each of several processes makes whole
        batches and cuts its part out.
        """

    def loss(self, model: nn.Module, batch: Batch, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the batch (scalar, differentiable) and detached scalar metrics, keys without prefix.

        All noise of the loss itself is drawn from `generator` (on the device).
        """

    def evaluate(self, model: nn.Module, split: Literal["val", "test"]) -> dict[str, float]:
        """Metrics over the whole split, keys without prefix, `loss` among them; the model is in eval mode.

        Deterministic: noise that a metric needs is drawn from a generator with a fixed seed.
        """

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, Batch]]:
        """The first `size` training examples (all when fewer), unaugmented, in chunks of at most `microbatch`.

        Each chunk comes with its weight; the weights add up to 1, so that the weighted sum of `loss` over the list is
        the loss of the whole set.
        """


@dataclass(frozen=True)
class Training:
    """What a probe is shown of a run: the live objects, to look at and not to change."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    task: Task
    streams: Streams
    device: device
    total_steps: int


@dataclass
class Moment:
    """One optimizer step as its probes see it."""

    step: int
    """Number of this step, counted from 1."""
    logged: bool
    """Whether this step writes a row: only then may a probe sync with the device without being asked to."""
    summed: bool = False
    """Whether gradients hold the sum over all steps so far (trainer.zero_grad=false)."""
    clip: Tensor | None = None
    """Factor c = min(1, clip_norm/‖g‖) on the gradients that the step was taken with, a scalar on their device; known
    after the step, None where nothing clips."""


class Probe(Protocol):
    """Numbers in, `{prefixed key: float}` out. Draws from its own stream; changes no training number."""

    def attach(self, training: Training) -> None:
        """Called once, before the first step. Raises ValueError where the run cannot be probed."""

    def before_step(self, moment: Moment) -> None:
        """After backward, before clipping and the optimizer: gradients are there, parameters are the old ones."""

    def after_step(self, moment: Moment) -> dict[str, float]:
        """After the optimizer and before the schedule: parameters and optimizer state are the new ones."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as if unbroken (tensors and plain values; `{}` where nothing)."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


@dataclass(frozen=True)
class RunInfo:
    """Who a run is: what records and loggers need to know of it."""

    id: str
    """Hash of everything that decides the run's numbers, seed included: 16 hex digits (vrbench.runs.identity)."""
    arm: str
    """The same without the seed and what follows it: runs of one arm are repetitions."""
    name: str
    study: str
    directory: Path
    config: Mapping[str, Any]
    """The resolved config, plain Python values."""
    choices: Mapping[str, str]
    """Which YAML was chosen for each config group: `{"task": "digits", "optimizer": "vradam", …}`."""
    seed: int
    label: str = ""
    """The optimizer and what the command line gave beside the choices and the seed: `vradam lr=0.01`."""
    follows_seed: tuple[str, ...] = ()
    """Config keys that hold the seed (`task.data.split_seed=${seed}`): they do not tell one arm's runs apart."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Content hashes of local data, by the config key that names them."""
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Hashes of the source files and versions of the libraries that the config builds (`runs.source.code_of`)."""
    tuned: Mapping[str, Any] | None = None
    """Of a confirmation's run: the search that chose its hyperparameters."""
    suffix: str = ""
    """Random letters of this training of the run, kept in its manifest: with them the id is unique among all people."""


class Logger(Protocol):
    """A place that gets the same numbers as metrics.jsonl. It must never stop a run.

    Optional: `rebuild(run, rows, summary)`, for a logger that keeps a copy of its own: write it anew from the records
    of a run that is over. It is called where a crash has cut the copy short. `on_terminal = True`, for one that shows
    the run on the terminal: a multirun, which shows all of its runs, leaves it out. `close()`: the run is left, be it
    over, stopped or broken; nothing comes after it.
    """

    def start(self, run: RunInfo, total_steps: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Open the run; `rows` are those already recorded when a broken run is resumed."""

    def log(self, row: Mapping[str, Any]) -> None:
        """One row: `step` and prefixed metrics."""

    def image(self, step: int, path: Path) -> None:
        """A picture that was written to the run's folder."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run is over; `summary` is what summary.json holds."""


@validated(frozen=True, config=_STRICT)
class RunSettings:
    """The run-wide settings at the top of config.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    study: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=128)
    ]  # W&B's groups have at most 128 characters
    results_dir: Annotated[str, Field(min_length=1)]
    force: Literal[True, False, "changed", "resume"]


@validated(frozen=True, config=_STRICT)
class TrainerSettings:
    """How the training loop runs. Field meanings are in conf/trainer/default.yaml, which states every one."""

    epochs: Annotated[int | None, Field(ge=1)]
    max_steps: Annotated[int | None, Field(ge=1)]
    fraction: Annotated[float, Field(gt=0, le=1)]
    accumulate: Annotated[int, Field(ge=1)]
    zero_grad: bool
    clip_norm: Annotated[float | None, Field(gt=0)]
    precision: Literal["float32", "bfloat16"]
    eval_precision: Literal["float32", "bfloat16"] | None
    channels_last: bool
    compile: bool
    ema_decay: Annotated[float | None, Field(ge=0, lt=1)]
    parallel: Literal["ddp", "fsdp"]
    log_every: Annotated[int, Field(ge=1)]
    eval_every: Annotated[int | None, Field(ge=1)]
    render_every: Annotated[int | None, Field(ge=1)]
    evaluate_test: bool
    checkpoint_seconds: Annotated[float, Field(ge=0)]
    device: str
    threads: Annotated[int | None, Field(ge=1)]

    @model_validator(mode="after")
    def _has_an_end(self) -> TrainerSettings:
        if self.epochs is None and self.max_steps is None:
            raise ValueError("epochs and max_steps are both null: give one of them")
        if self.parallel == "fsdp" and (self.compile or self.ema_decay is not None or not self.zero_grad):
            raise ValueError("parallel=fsdp goes with compile=false, ema_decay=null and zero_grad=true")
        return self

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimizer steps of the whole run; `max_steps` wins over `epochs`, `fraction` cuts either."""
        whole = self.max_steps
        if whole is None:
            assert self.epochs is not None
            whole = self.epochs * batches_per_epoch // self.accumulate
        return max(1, round(self.fraction * whole))
