"""The paper's tables and figure from nothing to a report: one command each, at three scales.

    python scripts/reproduce_paper.py table1 --scale smoke
    python scripts/reproduce_paper.py table1 table4 figure2 ablations --scale cpu
    python scripts/reproduce_paper.py table1 --scale full --yes

smoke   minutes: every stage runs, no figure means anything.
cpu     hours on two cores: stand-ins that need no download, tuned several times with equal budgets, fresh seeds.
        What it shows, it shows of the stand-ins.
full    the paper's data, models and budgets. Wants a GPU; without --yes its cost is measured on slivers and printed,
        and nothing else happens. Data come from the hub, or from where the plan says.

Table 1 is a planned study: scripts/plans/paper_<scale>.yaml (docs/studies.md). The others vary its best VRAdam. Every
stage is an ordinary vrbench command, printed before it runs: a script that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

FEW = "vradam,adamw,sgd"
RUNS = Path("results/runs")
PLANS = Path(__file__).parent / "plans"
Command = list[str]


def table1(scale: str, study: str) -> Iterator[Command]:
    """Four tasks, tuned, confirmed and reported."""
    yield ["study", str(PLANS / f"paper_{scale}.yaml"), "--go", "--results-dir", str(RUNS)]


def table4(scale: str, study: str) -> Iterator[Command]:
    """The kinetic energy's power, all else at the tuned values of the image task of table 1."""
    yield [*varied(scale, study), "optimizer.power=2,3,4,5,6"]


def ablations(scale: str, study: str) -> Iterator[Command]:
    """One factor at a time around table 1's best VRAdam, and the planes of rate and gate."""
    base = varied(scale, study)
    yield [*base, "optimizer.beta3=0.0,0.1,0.3,1.0,3.0,10.0"]
    yield [*base, "optimizer.alpha1=1.0,3.0,10.0,30.0,100.0"]
    yield [*base, "optimizer.gate_scope=global,group,tensor"]
    yield [*base, "optimizer.gate_on=velocity,gradient"]
    rates = "optimizer.lr=1.0e-4,3.0e-4,1.0e-3,3.0e-3,1.0e-2,3.0e-2,1.0e-1"
    around = [word for word in base if not word.startswith(("seed=", "study="))]
    planes = [f"study={study}-planes", "seed=0,1,2", rates]
    yield [*around, *planes, "optimizer.beta3=0.1,0.3,1.0,3.0"]
    yield [*around, *planes, "optimizer.alpha1=3.0,10.0,30.0"]
    yield ["-m", *planes, *image_task(scale), f"optimizer={FEW}"]


def varied(scale: str, study: str) -> Command:
    """The beginning of a command that varies VRAdam around the best configuration of one of its tunings for images."""
    task = image_task(scale)
    name = task[0].removeprefix("task=")
    best = RUNS / f"{scale}-table1" / "best" / "experiment"
    found = sorted(best.glob(f"{name}-*-vradam-*.yaml"))
    if not found:
        sys.exit(f"reproduce_paper: {best} has no search of VRAdam on {name}: run table1 at this scale first")
    seeds = f"seed=range(2000,{2002 if scale == 'smoke' else 2008})"
    return ["-m", "--config-dir", str(best.parent), f"experiment={found[-1].stem}", f"study={study}", seeds]


def image_task(scale: str) -> list[str]:
    """The image task of a scale."""
    if scale != "full":
        return ["task=digits", f"trainer.fraction={1.0 if scale == 'cpu' else 0.02}"]
    return ["task=cifar10", "model=deeper_cnn", "task.batch_size=1024", "trainer.epochs=100"]


def figure2(scale: str, study: str) -> Iterator[Command]:
    """ResNet-32 under VRAdam, Adam and SAM with the edge-of-stability probe."""
    command = ["-m", "experiment=paper/fig2", f"study={study}"]
    if scale == "full":
        yield command
        return
    steps, every, size = (400, 20, 128) if scale == "cpu" else (2, 2, 16)
    yield [
        *(*command, "task=digits", "model=resnet32", f"trainer.max_steps={steps}", "trainer.log_every=2"),
        *(f"probe.eos.every={every}", f"probe.eos.size={size}"),
    ]


PARTS = {"table1": table1, "table4": table4, "ablations": ablations, "figure2": figure2}


def vrbench(words: Sequence[str], extra: Sequence[str]) -> None:
    """Run one command; a failure ends the script with its exit code (the same script goes on from there)."""
    command = ["vrbench", *words, *extra]
    print(f"\n$ {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *command]).returncode
    if code:
        sys.exit(code)


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
    parser.add_argument("--yes", action="store_true", help="full: go on after the cost was printed")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a Hydra override for every run"
    )
    options = parser.parse_args()

    if options.scale == "full" and not options.yes:
        for part in options.parts:
            if part == "table1":
                vrbench([word for word in next(table1("full", "")) if word != "--go"], options.set)
        sys.exit("reproduce_paper: nothing was run; --yes goes on")
    for part in options.parts:
        study = f"{options.scale}-{part}"
        for words in PARTS[part](options.scale, study):
            vrbench(words, options.set)
        report(RUNS / study)


if __name__ == "__main__":
    main()
