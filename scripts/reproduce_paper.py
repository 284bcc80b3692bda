"""The paper's tables and figure from nothing to a report: one command each, at four scales.

    python scripts/reproduce_paper.py table1 --scale smoke
    python scripts/reproduce_paper.py table1 table4 figure2 ablations --scale cpu
    python scripts/reproduce_paper.py released table4 figure2 edge --scale small
    python scripts/reproduce_paper.py table1 --scale full --yes

smoke   minutes: every stage runs, no figure means anything.
cpu     hours on two cores: stand-ins that need no download, tuned several times with equal budgets, fresh seeds.
        What it shows, it shows of the stand-ins.
small   some twenty hours of one core: the paper's own tasks on real data (../shared/data), smaller models and lengths.
        The studies are called paper_<part> there, as they lie in results/.
full    the paper's data, models and budgets. Wants a GPU; without --yes its cost is measured on slivers and printed,
        and nothing else happens. Data come from the hub, or from where the plan says.

Table 1 is a planned study: scripts/plans/paper_<scale>.yaml, or results/paper_small/plan.yaml (docs/studies.md). The
others vary its best VRAdam; at the small scale table4 tunes each power and each form of the gate anew. Every stage is
an ordinary vrbench command, printed before it runs: a script that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vrbench.tuning.plan import read_plan

FEW = "vradam,adamw,sgd"
RUNS = Path("results/runs")
PLANS = Path(__file__).parent / "plans"
SMALL = Path(__file__).parents[1] / "results" / "paper_small" / "plan.yaml"
SCALES = {
    "smoke": PLANS / "paper_smoke.yaml",
    "cpu": PLANS / "paper_cpu.yaml",
    "small": SMALL,
    "full": PLANS / "paper_full.yaml",
}
Command = list[str]


def table1(scale: str, study: str) -> Iterator[Command]:
    """Four tasks, tuned, confirmed and reported."""
    yield ["study", str(SCALES[scale]), "--go", "--results-dir", str(RUNS)]


def table4(scale: str, study: str) -> Iterator[Command]:
    """The kinetic energy's power, all else at the tuned values of the image task of table 1; small: tuned anew."""
    if scale == "small":
        yield from matched(study)
    else:
        yield [*varied(scale, study), "optimizer.power=2,3,4,5,6"]


def matched(study: str) -> Iterator[Command]:
    """Powers and forms of the gate, and AdamW, on images and text: rate and beta3 of each tuned with 12 trials.

    beta3 is log-uniform over what can close the gate of each power as far: in one run of AdamW on each of these two
    tasks, looked at seven times, the sum of |v|^k fell from k to k + 1 by a factor between 2.5 and 770.
    """
    rest = ["schedule=wsd", "schedule.warmup=0.05", "hydra.sweeper.n_trials=12", "logger=none", "trainer.threads=1"]
    gate = [
        *rest,
        "optimizer=vradam",
        "hydra.sweeper.space.optimizer.alpha1=null",
        "hydra.sweeper.space.optimizer.gate_on=null",
    ]
    forms = [f"optimizer.power={power}" for power in range(2, 7)]
    forms += ["optimizer.gate_on=gradient", "optimizer.gate_scope=tensor"]
    for task in small_tasks()[:2]:
        for form in forms:
            above = int(form[-1]) - 2 if "power" in form else 0
            beta3 = f"{{low: {10.0 ** (above - 1)}, high: {10.0 ** (2.5 * above + 1)}, log: true}}"
            yield [
                "-m",
                "sweep=tune",
                f"study={study}",
                *task,
                *gate,
                form,
                f"++hydra.sweeper.space.optimizer.beta3={beta3}",
            ]
        yield ["-m", "sweep=tune", f"study={study}", *task, *rest, "optimizer=adamw"]
    yield ["-m", "experiment=confirm", f"study={study}", "seed=range(2000,2008)", "logger=none", "trainer.threads=1"]


def small_tasks() -> list[Command]:
    """The tasks of the small scale: images, text, diffusion, GridWorld, HyperGrid."""
    return [[f"task={task.task}", *task.overrides] for task in read_plan(SMALL)[0].planned_tasks]


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
    if scale == "small":
        own = ["task.data.path=../shared/data/cifar10", "task.data.train_size=10000", "task.data.val_fraction=0.04"]
        own += ["task.data.val_size=all"]
        own += ["task.data.test_size=2000", "trainer.epochs=null", "trainer.max_steps=300", "trainer.log_every=5"]
        own += ["trainer.eval_every=300", "probe.eos.every=20", "probe.eos.size=128", "probe.eos.microbatch=128"]
        yield [*command, *own, "logger=none", "trainer.threads=1"]
        return
    steps, every, size = (400, 20, 128) if scale == "cpu" else (2, 2, 16)
    yield [
        *(*command, "task=digits", "model=resnet32", f"trainer.max_steps={steps}", "trainer.log_every=2"),
        *(f"probe.eos.every={every}", f"probe.eos.size={size}"),
    ]


def released(scale: str, study: str) -> Iterator[Command]:
    """WikiText-2 as the released loop has it: gradients never zeroed, targets that leak; small: at three rates."""
    command = ["-m", "experiment=paper/wikitext2_as_released", f"study={study}"]
    if scale == "full":
        yield command
        return
    short = ["task.batch_size=8", "trainer.epochs=null", "trainer.max_steps=200", "trainer.eval_every=100"]
    own = [
        "task.data.path=../shared/data/wikitext2-mini",
        "task.data.val_size=20000",
        "optimizer=vradam,adam,sgd,rmsprop",
        "trainer.evaluate_test=false",
    ]
    rates = [*command, *own, *short, "optimizer.lr=1e-4,1e-3,1e-2", "logger=none", "trainer.threads=1"]
    yield [*rates, "trainer.zero_grad=false", "seed=0,1,2"]
    yield [*rates, "trainer.zero_grad=true", "seed=0"]


def edge(scale: str, study: str) -> Iterator[Command]:
    """Full batch on 5,000 images of CIFAR-10: gradient descent, Adam and VRAdam against their thresholds; VRAdam again
    with a beta3 of 100 and 1000, since at 1 the gate is open there and its threshold is Adam's."""
    images = [
        "task=cifar10",
        "task.batch_size=5000",
        "task.data.train_size=5000",
        "task.crop_padding=0",
        "task.flip=false",
    ]
    network = ["model.hidden=[200,200]", "probe.eos.size=5000", "probe.eos.microbatch=5000"]
    lengths = ["trainer.epochs=null", "trainer.max_steps=1500", "trainer.eval_every=500"]
    data = ["task.data.path=../shared/data/cifar10", "task.data.val_fraction=0.04", "task.data.test_size=2000"]
    own = [*images, *network, *lengths, *(data if scale == "small" else []), "logger=none", "trainer.threads=1"]
    yield ["experiment=eos/cifar10_5k", f"study={study}", *own]
    yield ["experiment=eos/adam", f"study={study}", *own]
    for gate in ([], ["optimizer.beta3=100"], ["optimizer.beta3=1000"]):
        yield ["experiment=eos/vradam", f"study={study}", *gate, *own]


PARTS = {
    "table1": table1,
    "table4": table4,
    "ablations": ablations,
    "figure2": figure2,
    "released": released,
    "edge": edge,
}
ONLY = {"released": ("small", "full"), "edge": ("small", "full"), "ablations": ("smoke", "cpu", "full")}
"""The scales of parts that do not have all of them: `ablations` of the small scale are in its table4."""


def vrbench(words: Sequence[str], extra: Sequence[str]) -> None:
    """Run one command; a failure ends the script with its exit code (the same script goes on from there)."""
    command = ["vrbench", *words, *extra]
    print(f"\n$ {shlex.join(command)}", flush=True)
    code = subprocess.run([sys.executable, "-m", *command]).returncode
    if code:
        sys.exit(code)


def report(study: Path, part: str) -> None:
    """A table, the figures, the page and, of a part of the paper that has figures in print, those beside ours."""
    folder = study / "report"
    commands = [["table", str(study)], ["figures", str(study), "-o", str(folder)]]
    commands.append(["html", str(study), "-o", str(folder / "report.html")])
    if part in ("table1", "table4", "figure2"):
        commands.append(["paper", str(study), "-o", str(folder / "paper.md")])
    for words in commands:
        print(f"\n$ vrbench-report {shlex.join(words)}", flush=True)
        subprocess.run([sys.executable, "-m", "vrbench.report.main", *words], check=True)


def name_of(scale: str, part: str) -> str:
    """The study of a part."""
    if part == "table1":
        return read_plan(SCALES[scale])[0].study
    return f"paper_{part}" if scale == "small" else f"{scale}-{part}"


def main() -> None:
    """Parse, say the cost, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--scale", choices=list(SCALES), default="smoke")
    parser.add_argument("--yes", action="store_true", help="full: go on after the cost was printed")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a Hydra override for every run"
    )
    options = parser.parse_args()
    for part in options.parts:
        if options.scale not in ONLY.get(part, SCALES):
            parser.error(f"{part} has the scales {', '.join(ONLY[part])}")

    if options.scale == "full" and not options.yes:
        for part in options.parts:
            if part == "table1":
                vrbench([word for word in next(table1("full", "")) if word != "--go"], options.set)
        sys.exit("reproduce_paper: nothing was run; --yes goes on")
    for part in options.parts:
        study = name_of(options.scale, part)
        for words in PARTS[part](options.scale, study):
            vrbench(words, options.set)
        report(RUNS / study, part)


if __name__ == "__main__":
    main()
