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
RUNS = Path("results/runs")
Command = list[str]
Paths = dict[str, str | None]


def tune(study: str, sweep: str, optimizers: str, trials: int, *overrides: str) -> Command:
    """One search for each optimizer, all with the same number of trials, by validation loss."""
    trial_words = [f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.startup_trials={max(2, trials // 3)}"]
    return ["-m", f"sweep={sweep}", f"study={study}", f"optimizer={optimizers}", *trial_words, *overrides]


def confirm(study: str, seeds: int) -> Command:
    """The best configuration of every search on seeds that no search has seen."""
    return ["-m", "experiment=confirm", f"study={study}", f"seed=range(0,{seeds})"]


def table1(scale: str, study: str, paths: Paths) -> Iterator[Command]:
    """Four tasks, tuned and confirmed."""
    if scale == "full":
        yield tune(study, "paper_images", MANY, 60, *image_task(scale, paths), "schedule=warmup_cosine")
        wikitext2 = ["task=wikitext2", f"task.data.path={paths['wikitext2']}", "model=encoder_decoder"]
        yield tune(study, "paper_language", MANY, 60, *wikitext2, "trainer.epochs=100")
        # The weights in GridWorld's loss stay as they are: trials that move their own metric rank nothing.
        yield tune(study, "paper_gridworld", MANY, 60, "task=gridworld", "hydra.sweeper.space.task=null")
        mnist = ["task=diffusion_mnist", f"task.data.path={paths['mnist']}", "model=paper_unet"]
        yield tune(study, "paper_diffusion", MANY, 60, *mnist, "trainer.epochs=50", "trainer.ema_decay=null")
        yield confirm(study, 8)
        return
    trials, seeds, length, many = (16, 8, 1.0, MANY) if scale == "cpu" else (2, 2, 0.02, FEW)
    yield tune(study, "paper_images", many, trials, *image_task(scale, paths))
    yield tune(study, "tune", many, trials, "task=hypergrid", f"trainer.fraction={0.4 * length}")
    yield tune(study, "paper_language", FEW, trials, "task=pydoc", f"trainer.fraction={0.4 * length}")
    cheap = ["task.quality.samples=64", "task.quality.splits=[test]", "trainer.eval_every=120"]
    diffusion = ["task=diffusion_digits", f"trainer.fraction={0.3 * length}", *cheap]
    yield tune(study, "paper_diffusion", FEW, trials, *diffusion)
    yield confirm(study, seeds)


def table4(scale: str, study: str, paths: Paths) -> Iterator[Command]:
    """The kinetic energy's power, all else at the tuned values of the image task of table 1."""
    yield [*varied(scale, study, paths), "optimizer.power=2,3,4,5,6"]


def ablations(scale: str, study: str, paths: Paths) -> Iterator[Command]:
    """One factor at a time around table 1's best VRAdam, and the planes of rate and gate."""
    base = varied(scale, study, paths)
    yield [*base, "optimizer.beta3=0.0,0.1,0.3,1.0,3.0,10.0"]
    yield [*base, "optimizer.alpha1=1.0,3.0,10.0,30.0,100.0"]
    yield [*base, "optimizer.gate_scope=global,group,tensor"]
    yield [*base, "optimizer.gate_on=velocity,gradient"]
    rates = "optimizer.lr=1.0e-4,3.0e-4,1.0e-3,3.0e-3,1.0e-2,3.0e-2,1.0e-1"
    around = [word for word in base if not word.startswith(("seed=", "study="))]
    planes = [f"study={study}-planes", "seed=0,1,2", rates]
    yield [*around, *planes, "optimizer.beta3=0.1,0.3,1.0,3.0"]
    yield [*around, *planes, "optimizer.alpha1=3.0,10.0,30.0"]
    yield ["-m", *planes, *image_task(scale, paths), f"optimizer={FEW}"]


def varied(scale: str, study: str, paths: Paths) -> Command:
    """The beginning of a command that varies VRAdam around its best configuration for images in table 1."""
    task = image_task(scale, paths)
    name = task[0].removeprefix("task=")
    best = RUNS / f"{scale}-table1" / "best" / "experiment"
    found = sorted(best.glob(f"{name}-*-vradam-*.yaml"))
    if not found:
        sys.exit(f"reproduce_paper: {best} has no search of VRAdam on {name}: run table1 at this scale first")
    where = [word for word in task if word.startswith("task.data.path=")]
    seeds = f"seed=range(0,{2 if scale == 'smoke' else 8})"
    return ["-m", "--config-dir", str(best.parent), f"experiment={found[-1].stem}", f"study={study}", seeds, *where]


def image_task(scale: str, paths: Paths) -> list[str]:
    """The image task of a scale."""
    if scale != "full":
        return ["task=digits", f"trainer.fraction={1.0 if scale == 'cpu' else 0.02}"]
    path = f"task.data.path={paths['cifar10']}"
    return ["task=cifar10", path, "model=deeper_cnn", "task.batch_size=1024", "trainer.epochs=100"]


def figure2(scale: str, study: str, paths: Paths) -> Iterator[Command]:
    """ResNet-32 under VRAdam, Adam and SAM with the edge-of-stability probe."""
    command = ["-m", "experiment=paper/fig2", f"study={study}"]
    if scale == "full":
        yield [*command, f"task.data.path={paths['cifar10']}"]
        return
    steps, every, size = (400, 20, 128) if scale == "cpu" else (2, 2, 16)
    yield [
        *(*command, "task=digits", "model=resnet32", f"trainer.max_steps={steps}", "trainer.log_every=2"),
        *(f"probe.eos.every={every}", f"probe.eos.size={size}"),
    ]


PARTS = {"table1": table1, "table4": table4, "ablations": ablations, "figure2": figure2}
DATA = ("cifar10", "wikitext2", "mnist")


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


def report(study: Path) -> None:
    """A table, the figures, the page and, where the study answers to the paper, what it answers."""
    folder = study / "report"
    commands = [["table", str(study)], ["figures", str(study), "-o", str(folder)]]
    commands.append(["html", str(study), "-o", str(folder / "report.html")])
    if not study.name.endswith("ablations"):
        commands.append(["paper", str(study), "-o", str(folder / "paper.md")])
    for words in commands:
        print(f"\n$ vrbench-report {shlex.join(words)}", flush=True)
        subprocess.run([sys.executable, "-m", "vrbench.report.main", *words], check=True)


def main() -> None:
    """Parse, say the cost, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--scale", choices=("smoke", "cpu", "full"), default="smoke")
    for name in DATA:
        parser.add_argument(
            f"--{name}", metavar="PATH", help="full: the data set's folder in the hub's layout, or its hub name"
        )
    parser.add_argument("--yes", action="store_true", help="full: go on after the cost was printed")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a Hydra override for every run"
    )
    options = parser.parse_args()
    paths = {name: getattr(options, name) for name in DATA}

    if options.scale == "full":
        needed = DATA if "table1" in options.parts else ("cifar10",)
        for name in needed:
            if paths[name] is None:
                parser.error(f"--scale full needs --{name} PATH")
        if "table1" in options.parts:
            costs = [
                hours(words) for words in table1("full", "full-table1", paths) if "experiment=confirm" not in words
            ]
            shown = " + ".join(f"{cost:,.0f}" for cost in costs)
            print(f"table1: about {shown} = {sum(costs):,.0f} hours on this machine, evaluation not counted")
        if not options.yes:
            sys.exit("reproduce_paper: nothing was run; --yes goes on")
    for part in options.parts:
        study = f"{options.scale}-{part}"
        for words in PARTS[part](options.scale, study, paths):
            vrbench(words, options.set)
        report(RUNS / study)


if __name__ == "__main__":
    main()
