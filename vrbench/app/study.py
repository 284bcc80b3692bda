"""`vrbench study plan.yaml`: a whole study from one file. docs/studies.md

    vrbench study plan.yaml              what it is, what it costs here, and what it can find
    vrbench study plan.yaml --go         tune, confirm and report; stopped, the same command goes on
    vrbench study plan.yaml --status     what is done

Every stage is a `vrbench` command, printed before it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout
from pydantic import ValidationError

from vrbench.app.refusals import say
from vrbench.loggers.console import duration
from vrbench.runs import archive
from vrbench.runs.locks import Lock
from vrbench.tuning.plan import Plan, commands, detectable, is_registered, progress, read_plan, register

SLIVERS = (0.05, 0.15)
"""Shares of a run that are trained to tell what a whole one costs, by the straight line through the two."""
FRACTION = "trainer.fraction="


def main(words: Sequence[str]) -> int:
    """Answer `vrbench study` with these words after it; the exit code."""
    parser = argparse.ArgumentParser(
        prog="vrbench study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--go", action="store_true", help="tune, confirm, report")
    what.add_argument("--status", action="store_true", help="what is done")
    parser.add_argument("--results-dir", type=Path, default=Path("results/runs"))
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="a config folder of your own")
    parser.add_argument("overrides", nargs="*", help="for every command: hydra/launcher=joblib trainer.threads=1")
    options = parser.parse_intermixed_args(list(words))
    folders, overrides = options.config_dir, options.overrides
    try:
        plan, digest = read_plan(options.plan)
        study = options.results_dir / plan.study
        if options.go:
            _restore(options.plan.parent, study)
            if not is_registered(study):
                _check(plan, [f"results_dir={options.results_dir}", *overrides], folders)
                if plan.budget_hours is not None and _cost(plan, overrides, folders):
                    return 2
            noted = register(study, digest, plan)
            print(f"study {plan.study}: plan {digest} of {noted['when']}")
            given = [f"--config-dir={folder}" for folder in folders]
            return _go(plan, study, [*given, f"results_dir={options.results_dir}", *overrides])
        done = progress(study)
        print(_described(plan, digest))
        print(f"done: {done.trials} of {plan.searches * plan.trials} trials' runs, "
              f"{done.confirmed} of {plan.searches * plan.seeds} confirmation runs")  # fmt: skip
        if options.status:
            return 0
        code = _cost(plan, overrides, folders)
        print(f"nothing was tuned; vrbench study {shlex.quote(str(options.plan))} --go")
        return code
    except ValidationError as error:
        first = error.errors()[0]
        return say(f"{options.plan}: {'.'.join(map(str, first['loc']))}: {first['msg']}", 2)
    except (OSError, ValueError) as error:
        return say(str(error), 2)


def _restore(folder: Path, study: Path) -> None:
    """Where the study was published beside its plan and is not here, go on from those records."""
    if not is_registered(study) and (folder / archive.FILE).exists():
        archive.unpack(folder / archive.FILE, study)
        print(f"study {study.name}: goes on from the records in {folder / archive.FILE}")


def _described(plan: Plan, digest: str) -> str:
    units, kind = (plan.replicates, "tuning replicates") if plan.replicates > 1 else (plan.seeds, "seeds of one tuning")
    tasks = ", ".join(task.task for task in plan.planned_tasks)
    lines = [
        f"study {plan.study}, plan {digest}",
        f"  {plan.settings} settings ({tasks}), {', '.join(plan.arms)}: {plan.searches} searches of {plan.trials} "
        f"trials, {plan.seeds} confirmation seeds each: {plan.runs} runs",
        f"  {plan.tests} comparisons with {plan.baseline}, one family; smallest effect {plan.smallest_effect}",
        f"  each finds with 80 % power a difference of {detectable(units, max(1, plan.tests)):.2f} standard deviations "
        f"of a unit's ({units} {kind})",
    ]
    return "\n".join(lines)


def _cost(plan: Plan, overrides: Sequence[str], folders: Sequence[Path]) -> int:
    """Train slivers of each task and model with each optimizer, and say what the study costs here: 2 if too much."""
    per_run = []
    models = [[f"model={name}"] for name in plan.models] or [[]]
    for task, model, optimizer in itertools.product(plan.planned_tasks, models, plan.arms):
        what = [f"task={task.task}", *model, f"optimizer={optimizer}"]
        seconds = _seconds([*what, *plan.overrides, *task.overrides, *overrides], folders)
        print(f"  {' '.join(what)}: about {seconds:.1f} s a run", flush=True)
        per_run.append(seconds)
    hours = plan.runs * sum(per_run) / len(per_run) / 3600
    print(f"  about {duration(hours * 3600)} for {plan.runs} runs, one after another")
    if plan.budget_hours is not None and hours > plan.budget_hours:
        return say(f"budget_hours={plan.budget_hours}: the plan takes about {duration(hours * 3600)}", 2)
    return 0


def _seconds(words: Sequence[str], folders: Sequence[Path]) -> float:
    """Seconds of a whole run with these overrides, evaluation included. Raises what a sliver of it raises."""
    from vrbench.app.interface import run

    given = [float(word.removeprefix(FRACTION)) for word in words if word.startswith(FRACTION)]
    whole = given[-1] if given else 1.0
    rest = [word for word in words if not word.startswith((FRACTION, "hydra"))]
    taken = []
    for share in (SLIVERS[0], *SLIVERS):  # the first has what only the first run of a process does, and is left out
        with tempfile.TemporaryDirectory() as folder:
            sliver = run([*rest, "logger=none", f"{FRACTION}{whole * share}", f"results_dir={folder}"], folders)
            assert sliver.summary is not None
            taken.append(sum(sliver.summary["seconds"].values()))
    _, first, second = taken
    slope = (second - first) / (SLIVERS[1] - SLIVERS[0])
    return float(max(second, second + slope * (1 - SLIVERS[1])))


def _check(plan: Plan, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Compose and check every search before the plan is registered. Raises ConfigError for a wrong one."""
    from vrbench.app.interface import sweep

    for words in commands(plan)[:-1]:
        with contextlib.redirect_stdout(None):
            sweep([*words[1:], *overrides, "hydra.sweeper.check=true"], folders)


def _go(plan: Plan, study: Path, overrides: Sequence[str]) -> int:
    for words in commands(plan):
        if "experiment=confirm" in words:
            _wait_for_trials(study)
        command = [*words, *overrides]
        print(f"\n$ vrbench {shlex.join(command)}", flush=True)
        if code := subprocess.run([sys.executable, "-m", "vrbench", *command]).returncode:
            return code
    over, planned = progress(study).confirmed, plan.searches * plan.seeds
    if over < planned:  # a report now would be a look with fewer runs than planned, which costs the test its power
        left = planned - over
        print(f"\nstudy={plan.study}: {left} confirmation runs are in other processes: the last to end reports")
        return 0
    confirmed, folder = str(study / "confirm"), study / "report"
    for words in (
        ["table", confirmed, "--baseline", plan.baseline],
        ["html", confirmed, "-o", str(folder / "report.html")],
    ):
        print(f"\n$ vrbench-report {shlex.join(words)}", flush=True)
        if code := subprocess.run([sys.executable, "-m", "vrbench.report.main", *words]).returncode:
            return code
    return 0


def _wait_for_trials(study: Path) -> None:
    """Wait until no other process works on a trial of the study; a process that dies works on none."""
    for path in sorted(study.glob("search/*/trial-*.lock")):
        try:
            with Lock(path, timeout=0):
                pass
        except Timeout:
            print(f"\nstudy={study.name}: {path.parent.name}: waiting for a trial in another process", flush=True)
            with Lock(path):
                pass
