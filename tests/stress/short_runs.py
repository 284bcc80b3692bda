"""Runs of seconds of every task, and what a study of them must hold in the end."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT
from same_numbers import numbers_of_folder

from vrbench.runs.records import find_runs

SHORT = (
    "logger=none", "trainer.threads=1", "trainer.device=cpu", "trainer.log_every=5", "trainer.eval_every=10",
    "trainer.checkpoint_seconds=0.05",
)  # fmt: skip
TASKS: dict[str, tuple[str, ...]] = {
    "digits": ("task.data.train_size=512", "trainer.max_steps=60"),
    "hypergrid": ("model.hidden=16", "task.batch_size=4", "trainer.max_steps=40"),
    "pydoc": (
        "model.layers=1", "model.width=32", "model.heads=2", "model.feed_forward=64", "task.context=16",
        "task.batch_size=4", "task/tokenizer=char", "task.eval_batch_size=512", "trainer.max_steps=30",
        "trainer.eval_every=15",
    ),
    "diffusion_digits": (
        "model.channels=[8,16]", "task.quality=null", "task.eval_examples=64", "task.sampler.steps=2",
        "task.render_samples=4", "task.batch_size=8", "trainer.max_steps=30", "trainer.eval_every=15",
        "trainer.render_every=15",
    ),
}  # fmt: skip
"""Overrides that make a run of each embedded task last about a second."""

IMAGES = (
    "task.data.train_size=256", "task.data.test_size=64", "task.data.val_fraction=0.002", "task.batch_size=16",
    "trainer.max_steps=30", "trainer.eval_every=15",
)  # fmt: skip
CNN = (*IMAGES, "model.channels=[4,8]", "model.hidden=16")
OTHER_TASKS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "gridworld": (
        None,
        ("task.size=4", "task.max_moves=8", "task.batch_size=8", "task.eval_walks=32", "trainer.max_steps=30"),
    ),
    "text": ("docs", (*TASKS["pydoc"], "task.data.pattern=*.md")),
    "cifar10": ("../shared/data/cifar10", CNN),
    "mnist": ("../shared/data/mnist", CNN),
    "diffusion_cifar10": ("../shared/data/cifar10", (*TASKS["diffusion_digits"], *IMAGES)),
    "diffusion_mnist": ("../shared/data/mnist", (*TASKS["diffusion_digits"], *IMAGES)),
    "wikitext2": ("../shared/data/wikitext2-mini", TASKS["pydoc"]),
}  # fmt: skip
"""Where the data of the other tasks is to be found, and what makes their runs last seconds."""

RECORDS = {"config.yaml", "manifest.json", "metrics.jsonl", "summary.json", "multirun.yaml", "index.jsonl"}


def short(task: str) -> list[str]:
    """The overrides of a short run of the task."""
    if task in TASKS:
        return [f"task={task}", *SHORT, *TASKS[task]]
    data, overrides = OTHER_TASKS[task]
    return [f"task={task}", *SHORT, *overrides, *([f"task.data.path={ROOT / data}"] if data else [])]


def short_tasks() -> list[str]:
    """Every task of conf/ whose data is here."""
    return [*TASKS, *(task for task, (data, _) in OTHER_TASKS.items() if data is None or (ROOT / data).exists())]


def only_run(study: Path) -> Path:
    """The folder of the study's one run."""
    (run,) = find_runs(study)
    return run.directory


def strays(study: Path) -> list[Path]:
    """What lies in a study of finished runs and should not."""
    paths = study.rglob("*")
    return [
        path
        for path in paths
        if (path.name == "checkpoint" if path.is_dir() else path.name not in RECORDS and path.suffix != ".png")
    ]


def check_equal(study: Path, unbroken: Path, count: int) -> int:
    """Both studies must hold the same `count` finished runs with the same numbers, and nothing else.

    Returns how many runs were found equal.
    """
    names = [run.directory.name for run in find_runs(unbroken)]
    assert len(names) == count
    assert [run.directory.name for run in find_runs(study)] == names
    for name in names:
        assert numbers_of_folder(study / name) == numbers_of_folder(unbroken / name), f"{name}: other numbers"
    assert strays(study) == []
    return len(names)
