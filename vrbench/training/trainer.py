"""The only training loop: batches → loss → backward → optimizer → schedule, with probes, evaluation and checkpoints.

A step is one optimizer step over `accumulate` batches. All randomness of a step is a function of the run's seed and the
step's number (vrbench.randomness), so a resumed run equals an unbroken one. Nothing between logged steps waits for the
device.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vrbench.contracts import Batch, Moment, Probe, Schedule, Task, TrainerSettings, Training
from vrbench.norms import clip
from vrbench.randomness import Streams
from vrbench.runs.records import peak_memory_bytes
from vrbench.runs.writer import RunWriter
from vrbench.training.averaging import MovingAverage
from vrbench.training.capabilities import capabilities
from vrbench.training.clock import Clock
from vrbench.training.distributed import Loss, Processes
from vrbench.training.recalibration import has_statistics, recalibrated


def pick_device(name: str) -> torch.device:
    """The device that `trainer.device` names; `auto` takes CUDA, then MPS, then the CPU.

    Raises ValueError where this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device={name}: not available on this machine; take auto or cpu") from error
    return device


class Stopped(Exception):
    """The run was asked to stop; its state is in a checkpoint. `step` of `total_steps` are done."""

    def __init__(self, step: int, total_steps: int) -> None:
        super().__init__(f"stopped at step {step} of {total_steps}")
        self.step = step
        self.total_steps = total_steps


class Trainer:
    """One run: build it with live parts, then `fit` it into a writer."""

    def __init__(
        self,
        settings: TrainerSettings,
        task: Task,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        probes: Mapping[str, Probe],
        streams: Streams,
        processes: Processes | None = None,
    ) -> None:
        self.settings = settings
        self.task = task
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.probes = dict(probes)
        self.streams = streams
        self.processes = processes or Processes()
        self.device = streams.device
        self.total_steps = settings.total_steps(task.batches_per_epoch)
        self.eval_every = settings.eval_every or max(1, task.batches_per_epoch // settings.accumulate)
        self.needs = capabilities(optimizer)
        self.average: MovingAverage | None = None
        if settings.ema_decay is not None:
            self.average = MovingAverage(model, settings.ema_decay)
        if settings.compile:
            model.compile()
            self.measured_model.compile()
        self.recalibrates = (self.average is not None or self.needs.train_eval) and has_statistics(model)
        """Whether batch-norm statistics are taken anew for each measurement: its weights are not those trained."""

        self.clock = Clock()
        self.step = 0
        self.validation: dict[str, float] = {}
        self.best: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self._loss: Any = Loss(task, model)
        self._finite = torch.ones((), dtype=torch.bool, device=self.device)
        self._finite_steps = torch.zeros((), dtype=torch.int64, device=self.device)
        self._noise = torch.Generator(self.device)
        self._augment = torch.Generator(self.device)
        self._order = torch.Generator("cpu")
        self._batches: Iterator[Batch] = iter(())
        self._next_batch = 0
        for probe in self.probes.values():
            probe.attach(Training(model, optimizer, task, streams, self.device, self.total_steps))

    # ---- the run ----------------------------------------------------------------------------------------------------

    def fit(self, writer: RunWriter, should_stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Train to the end (or from the last checkpoint on) and return the summary that was written.

        Raises Stopped, after a checkpoint, when `should_stop` says so between two steps.
        """
        state = self.processes.resumed(writer.resume(self.total_steps))
        self.clock = Clock()
        if state is not None:
            self._restore(state)
        self._train_mode()
        self._loss = self.processes.averaging(self._loss, self.streams.generator("trial"))
        if not self.settings.zero_grad:
            warnings.warn("trainer.zero_grad=false: gradients add up over the whole run", stacklevel=2)
        self.clock.begin_lap(self.step)
        saved_at = time.monotonic()
        diverged = False
        while self.step < self.total_steps and not diverged:
            row = self._train_step()
            validates = self._is_due(self.eval_every)
            renders = self._is_due(self.settings.render_every) and self.step < self.total_steps
            if row or validates or renders:
                diverged = not self._is_finite()
            if validates and not diverged:
                row |= self._validate()
                diverged = not self._is_finite()
            if renders and not diverged:
                self._render(writer)
            if row:
                self._write(writer, row)
            if diverged or self.step == self.total_steps:
                continue
            due = time.monotonic() - saved_at >= self.settings.checkpoint_seconds
            stop, due = self.processes.any(should_stop(), due)
            if stop or due:
                diverged = not self._is_finite()
                if diverged:
                    continue
                with self.clock.section("records"):
                    writer.checkpoint(self._state())
                saved_at = time.monotonic()
            if stop:
                raise Stopped(self.step, self.total_steps)
        summary = self._summarise(writer, diverged)
        with self.clock.section("records"):
            writer.finish(summary, self._memory())
        return summary

    def _is_due(self, every: int | None) -> bool:
        return every is not None and (self.step % every == 0 or self.step == self.total_steps)

    # ---- one step ---------------------------------------------------------------------------------------------------

    def _train_step(self) -> dict[str, float]:
        """One optimizer step; returns its row of metrics, empty where the step is not logged."""
        logged = (self.step + 1) % self.settings.log_every == 0
        moment = Moment(self.step + 1, logged, summed=not self.settings.zero_grad)
        batches = [self._take_batch() for _ in range(self.settings.accumulate)]
        loss, metrics = self._backward(batches)
        self._probe(lambda probe: probe.before_step(moment))
        moment.clip = self._update(batches)
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.model)
        self._finite.logical_and_(torch.isfinite(loss))
        self._finite_steps.add_(self._finite)

        row: dict[str, float] = {}
        if moment.logged:
            self._synchronise()
            row |= {"train/loss": float(loss)} | {f"train/{key}": float(value) for key, value in metrics.items()}
        self._probe(lambda probe: row.update(probe.after_step(moment)))
        self.schedule.step()
        return row

    def _take_batch(self) -> Batch:
        """The batch that comes next, with the augmentation stream at its place."""
        epoch, position = divmod(self._next_batch, self.task.batches_per_epoch)
        self.streams.reseed(self._augment, "augment", self._next_batch)
        try:
            batch = next(self._batches)
        except StopIteration:
            self.streams.reseed(self._order, "order", epoch)
            self._batches = self.processes.batches(self.task, self._order, self._augment, position)
            batch = next(self._batches)
        self._next_batch += 1
        return self._in_format(batch)

    def _in_format(self, batch: Batch) -> Batch:
        if not self.settings.channels_last or not isinstance(batch, tuple):
            return batch
        return tuple(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x for x in batch)

    def _backward(self, batches: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Fresh gradients of the mean loss over the batches; the same noise however often it is called in a step."""
        if self.settings.zero_grad:
            self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for place, batch in enumerate(batches, 1):
            stream = self.processes.stream(self.step * self.settings.accumulate + place - 1)
            self.streams.reseed(self._noise, "noise", stream)
            self.streams.reseed_global("dropout", stream)
            with self.processes.backward(self._loss, last=place == len(batches)):
                with self._autocast(self.settings.precision):
                    loss, metrics = self._loss(batch, self._noise)
                loss = loss / len(batches)
                loss.backward(create_graph=self.needs.create_graph)
            losses.append(loss.detach())
        total, *averages = self.processes.mean(functools.reduce(torch.add, losses), *metrics.values())
        return total, dict(zip(metrics, averages, strict=True))

    def _update(self, batches: list[Batch]) -> Tensor | None:
        """The optimizer's step; one that asks for more gradients has them on the same batches with the same noise.

        Returns the factor that clipping put on the gradients of the step.
        """
        factor = self._clip()

        def again() -> Tensor:
            nonlocal factor
            loss, _ = self._backward(batches)
            factor = self._clip()
            return loss

        if self.needs.two_step or self.needs.closure:
            self.optimizer.step(again)  # type: ignore[arg-type]
        else:
            self.optimizer.step()
        return factor

    def _clip(self) -> Tensor | None:
        if self.settings.clip_norm is None:
            return None
        return clip((p for group in self.optimizer.param_groups for p in group["params"]), self.settings.clip_norm)

    def _autocast(self, precision: str) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")

    def _probe(self, call: Callable[[Probe], None]) -> None:
        with self.clock.section("probe"):
            for probe in self.probes.values():
                call(probe)

    def _synchronise(self) -> None:
        """Wait for the device, so that the clock's sections hold what they ran."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _is_finite(self) -> bool:
        """Whether every loss so far was finite, validation included."""
        return bool(self._finite) and math.isfinite(self.validation.get("val/loss", 0.0))

    # ---- looking at the model ---------------------------------------------------------------------------------------

    @property
    def measured_model(self) -> nn.Module:
        """The model that evaluation and pictures are made with: the average where there is one."""
        return self.model if self.average is None else self.average.module

    def _train_mode(self) -> None:
        self.model.train()
        if self.needs.train_eval:
            self.optimizer.train()  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def _measuring(self, weights: Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """The model as it is measured: eval mode, `eval_precision`, no gradients, off the training clock.

        Where it is not the weights trained that are measured, batch-norm statistics are recalculated for those that
        are, and put back (vrbench.training.recalibration). `weights` that were taken in here hold them: put in once the
        optimizer is in the mode they were taken in, they are measured as they are, and stay in as the run's last.
        """
        self._synchronise()
        with self.clock.section("eval"), torch.no_grad(), contextlib.ExitStack() as stack:
            if self.needs.train_eval:
                self.optimizer.eval()  # type: ignore[attr-defined]
            model = self.measured_model.eval()
            self.processes.share_buffers(model)
            if weights is not None:
                self.processes.load_weights(model, weights)
            elif self.recalibrates:
                stack.enter_context(recalibrated(model, self.task, self.streams, self.step, self._in_format))
            stack.enter_context(self._autocast(self.settings.eval_precision or self.settings.precision))
            yield model
            self._synchronise()
        if weights is None:
            self._train_mode()

    def validation_metrics(self) -> set[str]:
        """The keys of a validation, found by one of the weights as they are; no number of the run is changed."""
        with self._measuring() as model:
            return {f"val/{key}" for key in self.task.evaluate(model, "val")}

    def _validate(self) -> dict[str, float]:
        with self._measuring() as model:
            metrics = self.processes.of_first(self.task.evaluate(model, "val"))
            self.validation = {f"val/{key}": float(value) for key, value in metrics.items()}
            if self._is_finite() and self._is_better(self.validation[self.task.metric]):
                self.best = {"step": self.step, "metrics": dict(self.validation)}
                self.best_weights = {key: value.clone() for key, value in self.processes.weights(model).items()}
        return self.validation

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if not self.best:
            return True
        best = self.best["metrics"][self.task.metric]
        return bool(value > best if self.task.direction == "max" else value < best)

    def _render(self, writer: RunWriter) -> None:
        if hasattr(self.task, "render"):
            with self._measuring() as model:
                writer.image(self.step, self.task.render(model), last=False)

    # ---- what is written --------------------------------------------------------------------------------------------

    def _write(self, writer: RunWriter, row: dict[str, float]) -> None:
        units = {unit: count * self.settings.accumulate for unit, count in self.task.units_per_batch.items()}
        times = self.clock.end_lap(self.step, units)
        epoch = self.step * self.settings.accumulate / self.task.batches_per_epoch
        with self.clock.section("records"):
            writer.log({"step": self.step, "epoch": epoch, **row, **times})

    def _summarise(self, writer: RunWriter, diverged: bool) -> dict[str, Any]:
        """Evaluate the best weights on the test split (its one use), draw the last picture, gather the numbers.

        A run that is not to read the test split (a search's trial) draws no last picture either: neither is for
        whoever chooses.
        """
        test: dict[str, float] = {}
        test_read = self.settings.evaluate_test and not diverged and bool(self.best)
        if test_read:
            with self._measuring(self.best_weights) as model:
                test = {f"test/{key}": float(value) for key, value in self.task.evaluate(model, "test").items()}
                if hasattr(self.task, "render"):
                    writer.image(self.step, self.task.render(model), last=True)
        return {
            "status": "diverged" if diverged else "finished",
            "metrics": {**self.validation, **test},
            "best": self.best or {"step": None, "metrics": {}},
            "test_read": test_read,
            "steps": min(int(self._finite_steps) + 1, self.step) if diverged else self.step,
            "primary": {"metric": self.task.metric, "direction": self.task.direction},
            "seconds": {key: self.clock.seconds[key] for key in ("train", "eval", "probe")},
        }

    def _memory(self) -> dict[str, int]:
        memory = {"peak_memory_bytes": peak_memory_bytes()}
        if self.device.type == "cuda":
            memory["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        return memory

    # ---- checkpoint -------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values."""
        return {
            "step": self.step,
            "model": self.processes.weights(self.model),
            "gradients": [] if self.settings.zero_grad else [p.grad for p in self.model.parameters()],
            "optimizer": self.processes.optimizer_state(self.model, self.optimizer),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "task": self.task.state_dict() if hasattr(self.task, "state_dict") else None,
            "probes": {name: probe.state_dict() for name, probe in self.probes.items()},
            "validation": self.validation,
            "best": self.best,
            "best_weights": self.best_weights,
            "seconds": self.clock.seconds,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self._next_batch = self.step * self.settings.accumulate
        self.processes.load_weights(self.model, state["model"])
        for parameter, gradient in zip(self.model.parameters(), state["gradients"], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self.processes.load_optimizer_state(self.optimizer, state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if hasattr(self.task, "load_state_dict"):
            self.task.load_state_dict(state["task"])
        for name in self.probes.keys() & state["probes"].keys():  # a run may go on with other probes
            self.probes[name].load_state_dict(state["probes"][name])
        self.validation, self.best = state["validation"], state["best"]
        self.best_weights = state["best_weights"]
        self._finite_steps.fill_(self.step)
        self.clock = Clock(state["seconds"])
