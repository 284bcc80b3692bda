"""What the sections of chaos.py share: runs of seconds over four tasks, children to kill, and what must be equal."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-m", "vrbench"]

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
TEXT = TASKS["pydoc"]
DIFFUSION = TASKS["diffusion_digits"]
OTHER_TASKS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "gridworld": (
        None,
        ("task.size=4", "task.max_moves=8", "task.batch_size=8", "task.eval_walks=32", "trainer.max_steps=30"),
    ),
    "text": ("docs", (*TEXT, "task.data.pattern=*.md")),
    "cifar10": ("../shared/data/cifar10", CNN),
    "mnist": ("../shared/data/mnist", CNN),
    "diffusion_cifar10": ("../shared/data/cifar10", (*DIFFUSION, *IMAGES)),
    "diffusion_mnist": ("../shared/data/mnist", (*DIFFUSION, *IMAGES)),
    "wikitext2": ("../shared/data/wikitext2-mini", TEXT),
}  # fmt: skip
"""Where the data of the other tasks is to be found, and what makes their runs last seconds."""

RECORDS = {"config.yaml", "manifest.json", "metrics.jsonl", "summary.json"}


def short(task: str) -> list[str]:
    """The overrides of a short run of the task."""
    if task in TASKS:
        return [f"task={task}", *SHORT, *TASKS[task]]
    data, overrides = OTHER_TASKS[task]
    return [f"task={task}", *SHORT, *overrides, *([f"task.data.path={ROOT / data}"] if data else [])]


def short_tasks() -> list[str]:
    """Every task of conf/ whose data is here."""
    return [*TASKS, *(task for task, (data, _) in OTHER_TASKS.items() if data is None or (ROOT / data).exists())]


class Failed(Exception):
    """Something that must hold does not."""


def expect(holds: bool, what: str) -> None:
    """Raises Failed, which says what does not hold."""
    if not holds:
        raise Failed(what)


def warm_up(gflownets: bool) -> None:
    """Import what runs need, so that forked children start at once; nothing here starts a thread."""
    import sklearn.datasets  # noqa: F401
    import torch
    import torch._dynamo
    from diffusers import DDIMScheduler  # noqa: F401

    if gflownets:
        import gfn.gym  # noqa: F401

        import tasks.hypergrid
    import tasks.diffusion
    import tasks.image_classification
    import tasks.language_modeling  # noqa: F401
    import vrbench.cli
    import vrbench.trainer  # noqa: F401

    torch.set_num_threads(1)


def vrbench(*words: str) -> int:
    """Call the command line in this process; returns its exit code."""
    from vrbench.cli import main

    sys.argv = ["vrbench", *words]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def fork(work: Callable[[], int], output: Path) -> int:
    """Start `work` in a forked child that says what it says into a file, and ends with the code returned; its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Exit code of a forked child, negative for the signal that ended it."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill(child: int) -> None:
    """SIGKILL, where the child is still there."""
    os.kill(child, signal.SIGKILL)


def in_child(work: Callable[[], int], output: Path) -> int:
    """Run `work` in a forked child and return its exit code."""
    return wait(fork(work, output))


@contextmanager
def said(path: Path) -> Iterator[None]:
    """What this process prints goes to a file."""
    with open(path, "a") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def run_folders(root: Path) -> list[Path]:
    """Folders of runs, finished or not, by name."""
    return sorted(path.parent for path in root.glob("**/manifest.json"))


def numbers(folder: Path) -> Any:
    """All of a run's records that must not depend on how often it was broken: everything but clocks and machines."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    untimed = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
    summary = json.loads((folder / "summary.json").read_text())
    pictures = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    return untimed, {key: value for key, value in summary.items() if key != "seconds"}, pictures


def strays(root: Path) -> list[str]:
    """Files of a study of finished runs that should not be there."""
    found = []
    for path in sorted(root.rglob("*")):
        known = path.name in RECORDS or path.suffix == ".png" or path.name in ("multirun.yaml", "index.jsonl")
        if not known and not path.is_dir():
            found.append(str(path.relative_to(root)))
        if path.is_dir() and path.name == "checkpoint":
            found.append(str(path.relative_to(root)))
    return found


def check_equal(study: Path, unbroken: Path, count: int) -> int:
    """Raises Failed unless both studies hold the same `count` finished runs with the same numbers, and nothing else.

    Returns how many runs were found equal.
    """
    names = [folder.name for folder in run_folders(unbroken)]
    expect(len(names) == count, f"{len(names)} unbroken runs, not {count}")
    expect([folder.name for folder in run_folders(study)] == names, f"{study} holds other runs than {unbroken}")
    equal = 0
    for name in names:
        expect((study / name / "summary.json").exists(), f"{name} is unfinished")
        expect(numbers(study / name) == numbers(unbroken / name), f"{name}: numbers differ from the unbroken run's")
        equal += 1
    expect(strays(study) == [], f"strays: {strays(study)}")
    return equal


def traceback_in(paths: Iterable[Path]) -> str | None:
    """The first file that holds a traceback."""
    return next((str(path) for path in paths if "Traceback (most recent" in path.read_text(errors="replace")), None)
