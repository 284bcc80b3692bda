"""Where a run's processor time goes: digits, pydoc, CIFAR-10, the hypergrid. `make bench-profile`.

    python scripts/bench/run_profile.py [--rounds 3] [--threads 1] [--cifar10 ../shared/data/cifar10]
    python scripts/bench/run_profile.py --draw          # the picture alone, from the record

Each run is a process of its own, from the interpreter's start to its end, whose time belongs at every moment to one
section: what is imported is told by library, and the functions of vrbench that a section is called by are wrapped from
outside. Time of threads, and of processes that the run waits for, counts; of several rounds the one that took least is
kept. CIFAR-10 is cut to an epoch of 2,560 images, with as many steps to an image of validation as the whole has; it is
left out, and the record says so, where its folder is not there.

Writes results/bench/profile.json (seconds by section) and, beside it, profile.svg (shares).
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

RUNS = {
    "digits": ("task=digits",),
    "pydoc": ("task=pydoc",),
    "cifar10": (
        "task=cifar10", "task.data.train_size=2560", "task.data.val_size=640", "task.data.test_size=640",
        "trainer.epochs=1",
    ),
    "hypergrid": ("task=hypergrid",),
}  # fmt: skip
"""What is run, beside where it is written and the number of threads."""

IMPORTS = "import "
TORCH = "import torch"
SECTIONS = {
    "interpreter": "Python's own start",
    TORCH: "importing torch",
    "imports": "importing all else",
    "composing": "composing the config",
    "identity": "checking it, the run's identity",
    "building": "model, optimizer, schedule",
    "data": "reading the data",
    "batches": "batches",
    "forward": "forward (walks too)",
    "backward": "backward",
    "gate": "the gate's pass",
    "optimizer": "the rest of the step",
    "harness": "the rest of the loop",
    "probes": "probes",
    "evaluation": "evaluation, pictures",
    "records": "records, checkpoints",
    "shutdown": "the process' end",
}
"""Every section, in the order of the picture, and what it is called there."""

BOOKED = {"eval": "evaluation", "probe": "probes", "records": "records"}
"""Sections of a run's own clock."""


# ---- in the process that is measured --------------------------------------------------------------------------------


def processor_seconds() -> float:
    """Of this process, all threads, and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Sections:
    """Seconds by section; at any time one runs, the innermost that was entered and not left. The first runs from 0."""

    def __init__(self, first: str, clock: Callable[[], float] = processor_seconds) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._name, self._since = first, 0.0
        self._thread = threading.get_ident()

    def switch(self, name: str) -> str:
        """Book the time so far, and run `name` from here; returns the section left."""
        now, left = self._clock(), self._name
        self.seconds[left] = self.seconds.get(left, 0.0) + now - self._since
        self._name, self._since = name, now
        return left

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """The block's time belongs to `name`."""
        left = self.switch(name)
        try:
            yield
        finally:
            self.switch(left)

    def wrapped(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time in this thread belongs to `name`."""

        @functools.wraps(work)
        def call(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return work(*arguments, **named)
            left = self.switch(name)
            try:
                return work(*arguments, **named)
            finally:
                self.switch(left)

        return call

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Put a wrapped function in the place of one of a module, a class or an object."""
        setattr(owner, attribute, self.wrapped(name, getattr(owner, attribute)))


class ImportWatch:
    """A finder that finds what the others do; the time of executing a module belongs to its library's section."""

    def __init__(self, sections: Sections) -> None:
        self._sections = sections

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As `importlib` asks every finder."""
        for finder in sys.meta_path:
            found = finder.find_spec(name, path, target) if finder is not self else None
            if found is not None:
                self._watch(found.loader, IMPORTS + library(name))
                return found
        return None

    def _watch(self, loader: Any, section: str) -> None:
        if hasattr(loader, "__dict__") and not isinstance(loader, type) and "exec_module" not in vars(loader):
            for step in ("create_module", "exec_module"):  # the first loads a library of machine code
                self._sections.wrap(loader, step, section)


def library(module: str) -> str:
    """What a module belongs to: `torch`, `vrbench` (all that is ours), `Python` (its standard library)."""
    top = module.split(".")[0]
    if top in ("vrbench", "optimizers", "tasks"):
        return "vrbench"
    return "Python" if top in sys.stdlib_module_names else top


def watch(sections: Sections) -> None:
    """Wrap what a section is called by; the training loop's parts once it is imported."""
    from vrbench.app import assembly, main, run

    sections.wrap(main, "run", "harness")
    sections.wrap(run, "prepare", "identity")
    build, instantiate = run.build, assembly.instantiate

    def built(*arguments: Any) -> Any:
        watch_training(sections)
        trainer = build(*arguments)
        sections.wrap(trainer.optimizer, "step", "optimizer")
        if hasattr(trainer.optimizer, "power_sum"):
            sections.wrap(trainer.optimizer, "power_sum", "gate")
        return trainer

    def made(node: Any, key: str) -> Any:
        return sections.wrapped("data" if key == "task" else "building", instantiate)(node, key)

    setattr(run, "build", sections.wrapped("building", built))  # noqa: B010
    setattr(assembly, "instantiate", made)  # noqa: B010


def watch_training(sections: Sections) -> None:
    """Wrap the parts of a training step, and what the run's own clock books."""
    import torch

    from vrbench.runs.writer import RunWriter
    from vrbench.training.clock import Clock
    from vrbench.training.distributed import Loss, Processes
    from vrbench.training.trainer import Trainer

    sections.wrap(Trainer, "_take_batch", "batches")
    sections.wrap(Loss, "forward", "forward")
    sections.wrap(torch.Tensor, "backward", "backward")
    sections.wrap(RunWriter, "close", "records")
    section, writer = Clock.section, Processes.writer

    @contextmanager
    def booked(clock: Clock, name: Any) -> Iterator[None]:
        with sections.section(BOOKED.get(name, "harness")), section(clock, name):
            yield

    @contextmanager
    def opened(processes: Processes, *arguments: Any, **named: Any) -> Iterator[RunWriter]:
        with ExitStack() as stack:
            with sections.section("records"):
                found = stack.enter_context(writer(processes, *arguments, **named))
            yield found

    setattr(Clock, "section", booked)  # noqa: B010
    setattr(Processes, "writer", opened)  # noqa: B010


def measured(output: str, *words: str) -> None:
    """Run `vrbench` with these words in this process; its sections, all but the last, go into the file `output`."""
    sections = Sections("interpreter")
    finder: Any = ImportWatch(sections)
    sys.meta_path.insert(0, finder)
    sections.switch("composing")
    import vrbench.app.main

    watch(sections)
    sys.argv = ["vrbench", *words]
    vrbench.app.main.main()
    sections.switch("shutdown")
    Path(output).write_text(json.dumps(sections.seconds))


# ---- around it ------------------------------------------------------------------------------------------------------

CHILD = "import sys; sys.path.insert(0, sys.argv[1]); from run_profile import measured; measured(*sys.argv[2:])"


def profile(words: Sequence[str]) -> dict[str, Any]:
    """One run in a process of its own: its steps, its seconds by section and by library, and all of them together.

    Raises CalledProcessError where it fails.
    """
    import subprocess
    import tempfile

    import timing

    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "sections.json"
        options = (f"results_dir={folder}/runs", "logger=none", "trainer.device=cpu")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(output), *words, *options]
        subprocess.run(command, cwd=timing.ROOT, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads(output.read_text())
        (summary,) = (json.loads(path.read_text()) for path in Path(folder).glob("runs/*/*/summary.json"))
    total = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    imports = {name.removeprefix(IMPORTS): took for name, took in found.items() if name.startswith(IMPORTS)}
    seconds = {name: found.get(name, 0.0) for name in SECTIONS}
    seconds["imports"] = sum(imports.values()) - seconds[TORCH]
    seconds["shutdown"] = total - sum(found.values())
    by_library = dict(sorted(imports.items(), key=lambda pair: -pair[1]))
    return {"words": list(words), "steps": summary["steps"], "total": total, "seconds": seconds, "imports": by_library}


def draw(profiles: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Each run's shares as one bar, in the order of `SECTIONS`; a share of 4 % or more has its number in it."""
    from vrbench.report.style import COLORS, legend_below, panels, save, styled

    with styled():
        figure, (axes,) = panels(1, height=0.8 + 0.5 * len(profiles))
        names = [f"{name}\n{found['total']:.1f} s, {found['steps']:,} steps" for name, found in profiles.items()]
        left = [0.0] * len(profiles)
        for number, (section, label) in enumerate(SECTIONS.items()):
            shares = [100 * found["seconds"][section] / found["total"] for found in profiles.values()]
            again = number // len(COLORS)
            color = COLORS[number % len(COLORS)]
            bars = axes.barh(
                names, shares, left=left, label=label, color=color, alpha=(0.9, 0.55, 0.25)[again],
                hatch=("", "////", "xxxx")[again], edgecolor="white", linewidth=0.5,
            )  # fmt: skip
            told = [f"{share:.0f}" if share >= 4 else "" for share in shares]
            plate = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
            for text in axes.bar_label(bars, told, label_type="center", fontsize=7):
                if text.get_text():
                    text.set_bbox(plate)
            left = [before + share for before, share in zip(left, shares, strict=True)]
        axes.invert_yaxis()
        axes.set(xlabel="share of the processor time (%)", xlim=(0, 100))
        axes.grid(visible=False, axis="y")
        legend_below(figure, [axes])
        save(figure, path, "svg")


def main() -> None:
    """Measure, print, write, draw."""
    import timing

    parser = timing.parser(__doc__, "profile.json", threads=1)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, of which the quickest is kept")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=[*RUNS], help="these runs alone")
    parser.add_argument(
        "--cifar10", default="../shared/data/cifar10", help="CIFAR-10 in the hub's layout, from the root"
    )
    parser.add_argument("--draw", action="store_true", help="draw what the record says, and measure nothing")
    options = timing.parse(parser)
    picture = options.output.with_suffix(".svg")
    if options.draw:
        draw(json.loads(options.output.read_text())["runs"], picture)
        print(f"written to {picture}")
        return
    runs: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in options.only:
        words = [*RUNS[name], f"trainer.threads={options.threads}"]
        if name == "cifar10":
            if not (timing.ROOT / options.cifar10).is_dir():
                skipped[name] = f"no folder {options.cifar10}"
                print(f"{name}: skipped: {skipped[name]}")
                continue
            words.append(f"task.data.path={options.cifar10}")
        runs[name] = min((profile(words) for _ in range(options.rounds)), key=lambda found: found["total"])
        shares = {part: seconds / runs[name]["total"] for part, seconds in runs[name]["seconds"].items()}
        told = ", ".join(f"{part} {share:.1%}" for part, share in shares.items())
        print(f"{name}: {runs[name]['total']:.2f} s, {runs[name]['steps']} steps: {told}", flush=True)
    timing.write(options, {"rounds": options.rounds, "runs": runs, "skipped": skipped})
    draw(runs, picture)
    print(f"written to {picture}")


if __name__ == "__main__":
    main()
