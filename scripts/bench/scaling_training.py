"""What scripts/bench/scaling.py measures of training: steps of optimizers, probes, checkpoints, the loop, tokens.

A function takes a size and the folder of that size, makes what is needed, and returns the work that is measured.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling_records import Work, exhaust

TENSOR = 1_000
"""Parameters in each of many tensors."""
STEPS = 20
"""Steps of a loop that is measured."""
DOCUMENT = 1_000
"""Tokens of a made-up document."""
CONTEXT, BATCH = 64, 64

# ---- parameters and tensors -----------------------------------------------------------------------------------------


def optimizer_of(name: str, tensors: int, elements: int) -> Any:
    """VRAdam or torch's AdamW, both fused, over so many tensors that have a gradient."""
    import torch
    from optimizer_step import build
    from vrbench.optimizers import VRAdam

    kinds = {"vradam": VRAdam, "adamw": torch.optim.AdamW}
    return build(kinds[name], [torch.Size((elements,))] * tensors, {"fused": True})


def step(name: str) -> Callable[[int, Path], Work]:
    """An optimizer's step along both axes."""

    def prepare(size: int, folder: Path) -> Work:
        return optimizer_of(name, 10, size // 10).step

    return prepare


def step_of_tensors(name: str) -> Callable[[int, Path], Work]:
    return lambda size, folder: optimizer_of(name, size, TENSOR).step


def norms(tensors: int, elements: int) -> Work:
    """What probe=optim does at a logged step, around an optimizer that does nothing."""
    from types import SimpleNamespace

    from vrbench.contracts import Moment
    from vrbench.probes.optim import OptimProbe

    probe, moment = OptimProbe(), Moment(step=1, logged=True)
    training: Any = SimpleNamespace(optimizer=optimizer_of("adamw", tensors, elements))
    probe.attach(training)

    def work() -> None:
        probe.before_step(moment)
        probe.after_step(moment)

    return work


def state_of(size: int) -> dict[str, Any]:
    """What a checkpoint of so many parameters holds of them: the weights and AdamW's two moments."""
    import torch

    parts = ("weights", "exp_avg", "exp_avg_sq")
    return {part: {str(number): torch.ones(size // 10) for number in range(10)} for part in parts}


def write_checkpoint(size: int, folder: Path) -> Work:
    from vrbench.runs import checkpoint

    state = state_of(size)
    (folder / "checkpoint").mkdir(exist_ok=True)
    return lambda: checkpoint.save(folder / "checkpoint", state)


def read_checkpoint(size: int, folder: Path) -> Work:
    from vrbench.runs import checkpoint

    write_checkpoint(size, folder)()
    return lambda: checkpoint.load(folder / "checkpoint", lambda state: None)


def loops(size: int, folder: Path) -> dict[str, Work]:
    """`STEPS` steps of a model of so many tensors, by the trainer and by a bare loop."""
    import torch
    import trainer
    from torch import nn

    from vrbench.contracts import TrainerSettings
    from vrbench.probes.optim import OptimProbe
    from vrbench.randomness import Streams
    from vrbench.training.trainer import Trainer

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterList(torch.ones(TENSOR) for _ in range(size))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10] * torch.stack(list(self.parts)).mean()

    task, streams, model = trainer.random_images(64, 8), Streams(0), Many()
    optimizer = torch.optim.AdamW(model.parameters())
    batches = trainer.endless(task, streams)

    def bare() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            trainer.cross_entropy(model, next(batches)).backward()
            optimizer.step()

    def fit() -> None:
        quiet: Any = trainer.WithoutEvaluation(task)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        settings = TrainerSettings(**{**trainer.DEFAULTS, "max_steps": STEPS})
        writer: Any = trainer.NoWriter()
        Trainer(settings, quiet, model, optimizer, schedule, {"optim": OptimProbe()}, streams).fit(writer)

    return {"bare": bare, "trainer": fit}


# ---- tokens ---------------------------------------------------------------------------------------------------------


def text(size: int) -> Any:
    """A corpus with so many tokens of training, in documents of 1,000 words of a vocabulary of 10,000."""
    import numpy as np

    from vrbench.data.text import Corpus

    chosen = np.random.default_rng(0).zipf(1.2, (100, DOCUMENT)) % 10_000
    words = [[f"w{number}" for number in document] for document in chosen]
    documents = ["\n".join(" ".join(one[at : at + 20]) for at in range(0, DOCUMENT, 20)) for one in words]
    return Corpus(
        [documents[place % 100] for place in range(math.ceil(size / DOCUMENT))], documents[:1], documents[1:2]
    )


def tokenizing(size: int, folder: Path) -> Work:
    from vrbench.data.tokenization import Word
    from vrbench.data.tokens import tokenize
    from vrbench.runs.content import cache_folder

    for made in cache_folder().glob("tokens-*/"):
        shutil.rmtree(made)
    corpus = text(size)
    return lambda: tokenize(corpus, Word(1))


def language_task(size: int) -> Any:
    from vrbench.tasks.language_modeling import LanguageModeling

    from vrbench.data.tokenization import Word

    return LanguageModeling("text", BATCH, BATCH, CONTEXT, "random", None, text(size), Word(1))


def cached_task(size: int, folder: Path) -> Work:
    """The task of a text whose tokens are in the cache."""
    language_task(10 * DOCUMENT)  # imports, which are no part of it
    return lambda: language_task(size)


def epoch(size: int, folder: Path) -> Work:
    """All batches of one epoch."""
    from vrbench.randomness import Streams

    task, streams = language_task(size), Streams(0)
    return lambda: exhaust(task.train_batches(streams.generator("order", 0), streams.generator("augment", 0)))
