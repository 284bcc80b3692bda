"""The paper's tables and figure from nothing to a report: one command each, at three scales.

    python scripts/reproduce_paper.py table1 --scale smoke
    python scripts/reproduce_paper.py table1 table4 figure2 ablations --scale cpu
    python scripts/reproduce_paper.py table1 --scale full --cifar10 PATH --wikitext2 PATH --mnist PATH --yes

smoke   minutes: every stage runs, no figure means anything.
cpu     an hour or two on two cores: stand-ins that need no download, tuned with equal budgets (16 trials an optimizer),
        confirmed on eight fresh seeds. What it shows, it shows of the stand-ins.
full    the paper's data, models and budgets. Wants a GPU; its cost is measured on a sliver of each run and printed
        first, and nothing else happens without --yes.

Every stage is an ordinary vrbench command, printed before it runs: a script that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SLIVER = 0.002
"""Share of a full run that is trained to tell its cost."""

FEW = "vradam,adamw,sgd"
MANY = "vradam,adamw,sgd,radam,rmsprop,lion"
Command = list[str]


def tune(study: str, task: str, sweep: str, optimizers: str, trials: int, *overrides: str) -> Command:
    """One search for each optimizer, all with the same number of trials, by validation loss."""
    return [
        *("-m", f"sweep={sweep}", f"study={study}", f"task={task}", f"optimizer={optimizers}"),
        *(f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.startup_trials={max(2, trials // 3)}", *overrides),
    ]


def confirm(study: str, seeds: int) -> Command:
    """The best configuration of every search on seeds that no search has seen."""
    return ["-m", "experiment=confirm", f"study={study}", f"seed=range(0,{seeds})"]


def table1(scale: str, study: str, paths: dict[str, str | None]) -> Iterator[Command]:
    """Four tasks, tuned and confirmed."""
    if scale == "full":
        fixed = [
            "hydra.sweeper.space.task=null"
        ]  # the loss's own weights stay: a metric that trials move ranks nothing
        cifar10 = [
            f"task.data.path={paths['cifar10']}",
            "model=deeper_cnn",
            "task.batch_size=1024",
            "trainer.epochs=100",
        ]
        yield tune(study, "cifar10", "paper_images", MANY, 60, *cifar10, "schedule=warmup_cosine")
        wikitext2 = [f"task.data.path={paths['wikitext2']}", "model=encoder_decoder", "trainer.epochs=100"]
        yield tune(study, "wikitext2", "paper_language", MANY, 60, *wikitext2)
        yield tune(study, "gridworld", "paper_gridworld", MANY, 60, *fixed)
        mnist = [f"task.data.path={paths['mnist']}", "model=paper_unet", "trainer.epochs=50", "trainer.ema_decay=null"]
        yield tune(study, "diffusion_mnist", "paper_diffusion", MANY, 60, *mnist)
        yield confirm(study, 8)
        return
    trials, seeds, length = (16, 8, 1.0) if scale == "cpu" else (3, 2, 0.05)
    yield tune(study, "digits", "paper_images", MANY, trials, f"trainer.fraction={length}")
    yield tune(study, "hypergrid", "tune", MANY, trials, f"trainer.fraction={0.4 * length}")
    yield tune(study, "pydoc", "paper_language", FEW, trials, f"trainer.fraction={0.4 * length}")
    cheap = ["task.quality.samples=64", "task.quality.splits=[test]", "trainer.eval_every=120"]
    yield tune(study, "diffusion_digits", "paper_diffusion", FEW, trials, f"trainer.fraction={0.3 * length}", *cheap)
    yield confirm(study, seeds)


def table4(scale: str, study: str, paths: dict[str, str | None]) -> Iterator[Command]:
    """The kinetic energy's power, all else at the tuned values of the image task of table 1."""
    yield [*varied(scale, study, paths), "optimizer.power=2,3,4,5,6"]


def ablations(scale: str, study: str, paths: dict[str, str | None]) -> Iterator[Command]:
    """One factor at a time around table 1's best VRAdam, and the planes of rate and gate."""
    base = varied(scale, study, paths)
    yield [*base, "optimizer.beta3=0.0,0.1,0.3,1.0,3.0,10.0"]
    yield [*base, "optimizer.alpha1=1.0,3.0,10.0,30.0,100.0"]
    yield [*base, "optimizer.gate_scope=global,group,tensor"]
    yield [*base, "optimizer.gate_on=velocity,gradient"]
    rates = "optimizer.lr=1.0e-4,3.0e-4,1.0e-3,3.0e-3,1.0e-2,3.0e-2,1.0e-1"
    plane = [word for word in base if not word.startswith(("seed=", "study="))]
    yield [*plane, f"study={study}-planes", "seed=0,1,2", rates, "optimizer.beta3=0.1,0.3,1.0,3.0"]
    yield [*plane, f"study={study}-planes", "seed=0,1,2", rates, "optimizer.alpha1=3.0,10.0,30.0"]
    free = [word for word in plane if not word.startswith(("--config-dir", "experiment="))]
    yield [*free, f"study={study}-planes", "task=digits", "seed=0,1,2", rates, f"optimizer={FEW}"]


def varied(scale: str, study: str, paths: dict[str, str | None]) -> Command:
    """The beginning of a command that varies VRAdam around its best configuration for images in table 1."""
    task = "cifar10" if scale == "full" else "digits"
    best = Path("results/runs") / study.replace(study.split("-")[-1], "table1") / "best" / "experiment"
    found = sorted(best.glob(f"{task}-*-vradam-*.yaml"))
    if not found:
        sys.exit(f"reproduce_paper: {best} has no search of VRAdam on {task}: run table1 at this scale first")
    where = [f"task.data.path={paths['cifar10']}"] if scale == "full" else []
    seeds = {"smoke": 2, "cpu": 8, "full": 8}[scale]
    return [
        "-m",
        "--config-dir",
        str(best),
        f"experiment={found[-1].stem}",
        f"study={study}",
        f"seed=range(0,{seeds})",
        *where,
    ]


def figure2(scale: str, study: str, paths: dict[str, str | None]) -> Iterator[Command]:
    """ResNet-32 under VRAdam, Adam and SAM with the edge-of-stability probe."""
    command = ["-m", "experiment=paper/fig2", f"study={study}"]
    if scale == "full":
        yield [*command, f"task.data.path={paths['cifar10']}"]
        return
    steps, every = (400, 20) if scale == "cpu" else (6, 3)
    yield [
        *(*command, "task=digits", "model=resnet32", f"trainer.max_steps={steps}", "trainer.log_every=2"),
        *(f"probe.eos.every={every}", "probe.eos.size=128"),
    ]


PARTS = {"table1": table1, "table4": table4, "ablations": ablations, "figure2": figure2}
NEEDS = {
    "table1": ("cifar10", "wikitext2", "mnist"),
    "table4": ("cifar10",),
    "ablations": ("cifar10",),
    "figure2": ("cifar10",),
}


def vrbench(words: Sequence[str], extra: Sequence[str]) -> None:
    """Run one command; a failure ends the script with its exit code (the same script goes on from there)."""
    command = ["vrbench", *words, *extra]
    print(f"\n$ {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *command]).returncode
    if code:
        sys.exit(code)


def hours(words: Sequence[str]) -> float:
    """Hours that a search of this command would take here, from the seconds of a sliver of one of its runs."""
    values = dict(word.split("=", 1) for word in words if "=" in word)
    optimizers = values["optimizer"].split(",")
    runs = len(optimizers) * (int(values["hydra.sweeper.n_trials"]) + 8)
    single = [word for word in words[1:] if not word.startswith(("sweep=", "hydra.", "study=", "optimizer="))]
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["optimizer=adamw", f"results_dir={folder}", "logger=none", f"trainer.fraction={SLIVER}"]
        subprocess.run([sys.executable, "-m", "vrbench", *single, *quiet], check=True, stdout=subprocess.DEVNULL)
        summary = json.loads(next(Path(folder).glob("*/*/summary.json")).read_bytes())
    return float(runs * summary["seconds"]["train"] / SLIVER / 3600)


def main() -> None:
    """Parse, say the cost, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--scale", choices=("smoke", "cpu", "full"), default="smoke")
    for name in ("cifar10", "wikitext2", "mnist"):
        parser.add_argument(
            f"--{name}", metavar="PATH", help="full: the data set's folder in the hub's layout, or its hub name"
        )
    parser.add_argument("--yes", action="store_true", help="full: go on after the cost was printed")
    parser.add_argument("overrides", nargs="*", default=[], help=argparse.SUPPRESS)
    options, extra = parser.parse_known_args()
    paths = {name: getattr(options, name) for name in ("cifar10", "wikitext2", "mnist")}

    if options.scale == "full":
        missing = [name for part in options.parts for name in NEEDS[part] if paths[name] is None]
        if missing:
            parser.error(f"--scale full needs --{missing[0]} PATH")
        if "table1" in options.parts:
            total = 0.0
            for words in list(table1("full", "paper-table1", paths))[:-1]:
                cost = hours(words)
                total += cost
                print(f"{words[3]}: about {cost:,.0f} hours on this machine, evaluation not counted", flush=True)
            print(f"table1: about {total:,.0f} hours on this machine")
        if not options.yes:
            sys.exit("reproduce_paper: nothing was run; --yes goes on")
    for part in options.parts:
        study = f"{options.scale}-{part}"
        for words in PARTS[part](options.scale, study, paths):
            vrbench(words, extra)
        folder = Path("results/runs") / study
        for words in (["table", str(folder)], ["paper", str(folder)], ["html", str(folder)]):
            print(f"\n$ vrbench-report {shlex.join(words)}", flush=True)
            subprocess.run([sys.executable, "-m", "vrbench.report.main", *words], check=True)


if __name__ == "__main__":
    main()
