"""The harness against bare loops: `make bench`. Writes results/bench/trainer.json.

Both sides train the same model with the same optimizer on the same in-memory tensors, in blocks of a few steps that
alternate in one process. The figure is the median over the block pairs of (trainer's rate / bare rate).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timing
import torch
import yaml
from torch import nn
from torch.nn import functional

from vrbench.contracts import Batch, Task, TrainerSettings
from vrbench.probes.optim import OptimProbe
from vrbench.randomness import Streams
from vrbench.training.trainer import Trainer

BLOCK_SECONDS = 2.0
BAR = {"at_least": 0.97}
WARM_UP = 3
"""Steps of each side before the first block, and those that say how many make a block."""


class NoWriter:
    """Stands for a run's folder: takes rows and keeps none."""

    def resume(self, total_steps: int) -> None:
        return None

    def log(self, row: dict[str, Any]) -> None:
        pass

    def finish(self, summary: dict[str, Any], memory: dict[str, int]) -> None:
        pass


class WithoutEvaluation:
    """The task as it is, except that evaluation costs nothing: the figure is about training."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        if name == "render":
            raise AttributeError(name)
        return getattr(self._task, name)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return {self._task.metric.split("/", 1)[1]: 0.0, "loss": 0.0}


@dataclass(frozen=True)
class Contest:
    """What two loops train alike: each builds its own model and optimizer, from one seed.

    `task` has its data on `device`. `settings` are those of the trainer that differ from its defaults.
    """

    task: Task
    make_model: Callable[[], nn.Module]
    make_optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
    settings: Mapping[str, Any]
    bare_loss: Callable[[nn.Module, Batch], torch.Tensor]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def _parts(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = self.make_model()
        if self.settings.get("channels_last"):
            model = model.to(memory_format=torch.channels_last)
        model = model.to(self.device)
        if self.settings.get("compile"):
            model.compile()
        return model, self.make_optimizer(model.parameters())

    def bare(self) -> Callable[[int], None]:
        """A loop of nothing but torch, as a function of its steps."""
        model, optimizer = self._parts()
        batches = endless(self.task, Streams(0, self.device))
        bf16 = self.settings.get("precision") == "bfloat16"

        def run(block: int) -> None:
            model.train()
            for _ in range(block):
                batch = next(batches)
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
                    loss = self.bare_loss(model, batch)
                loss.backward()
                optimizer.step()

        return run

    def vrbench(self) -> Callable[[int], None]:
        """The trainer, as a function of its steps; a model that is to be compiled is so once, as in a run."""
        model, optimizer = self._parts()
        streams = Streams(0, self.device)
        quiet: Any = WithoutEvaluation(self.task)
        settings = {**DEFAULTS, "device": str(self.device), **self.settings, "compile": False}

        def run(block: int) -> None:
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
            probes = {"optim": OptimProbe()}
            limits = TrainerSettings(**{**settings, "max_steps": block})
            writer: Any = NoWriter()
            Trainer(limits, quiet, model, optimizer, schedule, probes, streams).fit(writer)

        return run


def compare(
    task: Task,
    make_model: Callable[[], nn.Module],
    make_optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
    settings: Mapping[str, Any],
    bare_loss: Callable[[nn.Module, Batch], torch.Tensor],
    *,
    pairs: int,
    device: torch.device | None = None,
    wait: Callable[[], object] = timing.nothing,
) -> dict[str, Any]:
    """Alternate blocks of steps of about `BLOCK_SECONDS`; steps/s of both sides, their ratio and its spread.

    On a `device` other than the CPU, `wait` waits for what it was given, as in `timing.timed`.
    """
    contest = Contest(task, make_model, make_optimizer, settings, bare_loss, device or torch.device("cpu"))
    runs = {"bare": contest.bare(), "vrbench": contest.vrbench()}
    return in_blocks(runs, "vrbench", "bare", pairs, wait)


def in_blocks(
    runs: Mapping[str, Callable[[int], None]],
    ours: str,
    theirs: str,
    pairs: int,
    wait: Callable[[], object] = timing.nothing,
) -> dict[str, Any]:
    """Steps/s of two loops that take turns block by block, and the ratio of our rate to theirs with its quartiles."""
    for run in runs.values():
        run(WARM_UP)
    _, some = timing.timed(partial(runs[theirs], WARM_UP), wait=wait)
    block = max(1, round(BLOCK_SECONDS * WARM_UP / some))
    sides = {name: partial(run, block) for name, run in runs.items()}
    taken = timing.in_turns(sides, pairs, warm_up=0, swap=True, wait=wait)
    return {
        **{f"{name}_steps_per_s": block / statistics.median(taken[name]) for name in sides},
        **timing.ratio(taken[theirs], taken[ours]),
        "block_steps": block,
        "pairs": pairs,
    }


DEFAULTS: dict[str, Any] = {
    **yaml.safe_load((timing.ROOT / "conf" / "trainer" / "default.yaml").read_bytes()),
    "epochs": None,
    "checkpoint_seconds": 1e9,
    "device": "cpu",
}
"""The harness as users have it, without checkpoints."""


def endless(task: Task, streams: Streams) -> Iterator[Batch]:
    """The task's own training batches, epoch after epoch."""
    epoch = 0
    while True:
        order, augment = streams.generator("order", epoch, "cpu"), streams.generator("augment", epoch)
        yield from task.train_batches(order, augment)
        epoch += 1


def cross_entropy(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The bare loop's loss: nothing but the model and torch's cross-entropy."""
    images, labels = batch
    return functional.cross_entropy(model(images).float(), labels)


def report(name: str, unit: str, per_step: int, figures: dict[str, Any]) -> None:
    """One line: both rates and their ratio."""
    bare, ours = (figures[key] * per_step for key in ("bare_steps_per_s", "vrbench_steps_per_s"))
    low, high = figures["ratio_quartiles"]
    print(
        f"{name:34s} bare {bare:9.1f} {unit}/s   vrbench {ours:9.1f} {unit}/s   ratio {figures['ratio']:.3f} "
        f"(quartiles {low:.3f} and {high:.3f})",
        flush=True,
    )


def random_images(count: int, batch_size: int) -> Task:
    """CIFAR-shaped images with noise for pixels: the speed is that of the real ones, and no data set is needed."""
    from vrbench.tasks.image_classification import ImageClassification

    from vrbench.data.images import ImageData

    generator = torch.Generator().manual_seed(0)
    sizes = {"train": count, "val": batch_size, "test": batch_size}
    images = {
        split: torch.randint(0, 256, (size, 32, 32, 3), generator=generator, dtype=torch.uint8)
        for split, size in sizes.items()
    }
    labels = {split: torch.randint(0, 10, (size,), generator=generator) for split, size in sizes.items()}
    return ImageClassification(
        name="cifar-shaped",
        data=ImageData(images, labels, 10),
        batch_size=batch_size,
        eval_batch_size=512,
        crop_padding=4,
        flip=True,
        mean=[0.4914, 0.4822, 0.4465],
        std=[0.247, 0.243, 0.261],
        label_smoothing=0.0,
        criterion="cross_entropy",
        top_k=None,
    )


def main() -> None:
    """Measure, print, write."""
    parser = timing.parser(__doc__, "trainer.json", threads=2)
    parser.add_argument("--pairs", type=int, default=9, help="how many pairs of blocks")
    options = timing.parse(parser)

    from vrbench.models.deeper_cnn import DeeperCNN

    task = random_images(4096, 128)
    results = {}
    for name, settings in {
        "DeeperCNN float32 channels_last": {"channels_last": True},
        "DeeperCNN float32": {},
    }.items():
        results[name] = compare(
            task,
            lambda: DeeperCNN(task.input_shape, task.output_dim, channels=[64, 128, 256], hidden=512),
            lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, fused=True),
            settings,
            cross_entropy,
            pairs=options.pairs,
        )
        report(name, "img", 128, results[name])
    figures = [
        timing.figure(f"trainer, its rate over a bare loop's: {name}", BAR, one) for name, one in results.items()
    ]
    timing.write(options, {"results": results, "figures": figures})


if __name__ == "__main__":
    main()
