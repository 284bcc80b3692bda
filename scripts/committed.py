"""A study as it is committed in a folder of results/, and what the results page asks of it beyond its tables."""

from __future__ import annotations

import json
import math
import re
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from run_curves import RunCurves

from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.compare import Comparison, compare
from vrbench.report.control import finished
from vrbench.report.leaves import plain
from vrbench.report.paper import published
from vrbench.report.publish import confirmed
from vrbench.report.replicates import Control, against_itself, t_test
from vrbench.report.smallest import Smallest
from vrbench.report.statistics import holm
from vrbench.report.study import compact
from vrbench.runs import archive
from vrbench.runs.records import find_runs
from vrbench.tuning.plan import read_plan


@dataclass(frozen=True)
class Lead:
    """An optimizer's lead over another, by replicate: how much better its test metric is, in the metric's unit."""

    arm: Arm
    """Of the optimizer, under the schedule."""
    schedule: str
    without: np.ndarray
    """Under the baseline schedule."""
    with_it: np.ndarray

    @property
    def taken(self) -> np.ndarray:
        """What the schedule takes away of it. Both sides are replicates of one number: they have its data split."""
        return self.without - self.with_it


def taken_holm(leads: Sequence[Lead]) -> list[float]:
    """Holm's p values of Student's two-sided tests that the schedule takes nothing of a lead, as one family."""
    return holm([t_test(lead.taken) for lead in leads])


class Committed:
    """A study of results/. Raises OSError where it lacks a file that is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """verdicts.json: the rows of each table, in full precision."""
        rows: dict[str, list[dict[str, Any]]] = self.read("verdicts.json")
        return rows

    def compared(self, rival: str, baseline: str = "adamw") -> list[dict[str, Any]]:
        """The comparisons of a rival with the baseline, one a task, model and schedule."""
        return self.rows[f"{rival} against {baseline}"]

    def by_gain(self, baseline: str = "adamw") -> list[dict[str, Any]]:
        """The comparisons of all rivals with the baseline, task by task, the largest gain first."""
        rows = [row for title, rows in self.rows.items() if title.endswith(f" against {baseline}") for row in rows]
        sign = {"max": -1, "min": 1}
        return sorted(rows, key=lambda row: (row["task"], sign[row["direction"]] * row["difference"]))

    def by_seed(self, row: dict[str, Any]) -> list[float]:
        """The paired differences of a comparison of two arms that were tuned once."""
        key = f"test/{row['metric']}"
        a, b = (
            next(arm for arm in self.arms if (arm.task, arm.label) == (row["task"], row[side])).by_seed(key)
            for side in ("a", "b")
        )
        return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]

    def family(self, rival: str) -> list[float]:
        """Holm's p values of a rival's comparisons with all its baselines, as the one family that they are."""
        tables = [rows for title, rows in self.rows.items() if title.startswith(f"{rival} against ")]
        return holm([row["p"] for rows in tables for row in rows])

    def read(self, name: str) -> Any:
        """Another JSON file of the folder."""
        return json.loads((self.folder / name).read_bytes())

    @property
    def counted(self) -> str:
        """How many runs were planned and are over, and how they ended."""
        lines = (self.folder / "tables.md").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if re.search(r" are over\b", line)).rstrip(".")

    @property
    def over(self) -> bool:
        """Whether its tables are there; before, its records are committed alone."""
        return (self.folder / "verdicts.json").exists()

    @property
    def scale(self) -> list[tuple[str, str]]:
        """Of a planned study, each task with what it sets otherwise than its YAML: `("cifar10", "batch_size=64")`."""
        plan, _ = read_plan(self.folder / "plan.yaml")
        found = []
        for task in plan.planned_tasks:
            own = [word for word in task.overrides if not word.startswith(("task.data.path=", "trainer.epochs="))]
            found.append((task.task, ", ".join(re.sub(r"^(task[.](data[.])?|trainer[.])", "", word) for word in own)))
        return found

    @cached_property
    def _temporary(self) -> tempfile.TemporaryDirectory[str]:
        """Where its records are unpacked, as long as this object lives."""
        return tempfile.TemporaryDirectory()

    @cached_property
    def records(self) -> Path:
        """Its runs and searches, unpacked."""
        study = Path(self._temporary.name) / self.folder.name
        archive.unpack(self.folder / archive.FILE, study)
        return study

    @property
    def compact(self) -> str:
        """The table that its multirun ends with, as Markdown."""
        return compact(collect([self.records])).markdown

    @cached_property
    def arms(self) -> list[Arm]:
        """Its confirmed arms without the control, or all of them where nothing was confirmed."""
        return [arm for arm in confirmed(self.records) if arm.over and not arm.control]

    def chosen(self, key: str) -> dict[tuple[str, str], Counter[str]]:
        """By task and optimizer, how many of its searches chose each value of a key."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for arm in self.arms:
            values = [plain(record["params"][key]) for record in arm.tuned if key in record["params"]]
            found.setdefault((arm.task, arm.optimizer), Counter()).update(values)
        return {place: counts for place, counts in found.items() if counts}

    def chosen_by(self, optimizer: str, key: str) -> Counter[str]:
        """How many of an optimizer's searches, over all tasks, chose each value of a key."""
        return sum((counts for (_, name), counts in self.chosen(key).items() if name == optimizer), Counter[str]())

    def against_itself(self, optimizer: str = "adamw") -> list[tuple[Arm, Control]]:
        """Of each arm of an optimizer that was tuned several times: how often its tunings differ from each other."""
        arms = [arm for arm in self.arms if arm.optimizer == optimizer and len(arm.parts) > 1]
        return [(arm, against_itself(finished(arm, "test"))) for arm in arms]

    def tuning_means(self, optimizer: str = "adamw", metric: str = "") -> list[tuple[Arm, list[float]]]:
        """Of each arm of an optimizer that was tuned several times, the tunings' means on the test split, sorted: of
        the task's metric, or of another."""
        found = []
        for arm in self.arms:
            if arm.optimizer == optimizer and arm.parts:
                by_seed = (part.by_seed(f"test/{metric or arm.metric}").values() for part in arm.tunings)
                found.append((arm, sorted(statistics.fmean(values) for values in by_seed)))
        return found

    def grid(self, down: Sequence[str], across: Sequence[str]) -> dict[tuple[str, ...], dict[tuple[str, ...], Arm]]:
        """The arms by the values of these settings (or `task`, `model`, `optimizer`): rows by `down`, columns by
        `across`; a dash where an arm has no such setting. Raises ValueError where two arms fall on one place.
        """
        rows: dict[tuple[str, ...], dict[tuple[str, ...], Arm]] = {}
        for arm in self.arms:
            of = {"task": arm.task, "model": arm.model, "optimizer": arm.optimizer, **arm.settings}
            row, column = (tuple(of.get(key, "–") for key in keys) for keys in (down, across))
            if column in rows.setdefault(row, {}):
                raise ValueError(f"{self.folder.name}: {row}, {column}: several arms; name more settings")
            rows[row][column] = arm
        return rows

    def highest(self, arms: Sequence[Arm], key: str) -> float:
        """The highest value of a logged metric in all runs of some arms, nan without one."""
        logged = (row[key] for arm in arms for run in arm.over for row in run.rows() if key in row)
        return max(logged, default=float("nan"))

    def median(self, arm: Arm, key: str) -> float:
        """The median over an arm's runs of each run's median of a logged metric, nan without one."""
        logged = ([row[key] for row in run.rows() if key in row] for run in arm.over)
        medians = [statistics.median(values) for values in logged if values]
        return statistics.median(medians) if medians else float("nan")

    def powers(self, key: str) -> dict[str, dict[str, float]]:
        """By task, the mean of a final metric for each power of VRAdam's kinetic energy, with its gate as published."""
        found: dict[str, dict[str, float]] = {}
        for task, power, arm in self._powers():
            found.setdefault(task, {})[power] = self.mean(arm, key)
        return found

    def gates(self) -> list[float]:
        """The median gate of each arm of `powers`."""
        return [self.median(arm, "optim/gate") for _, _, arm in self._powers()]

    def _powers(self) -> Iterator[tuple[str, str, Arm]]:
        keys = ("task", "optimizer", "optimizer.gate_on", "optimizer.gate_scope", "optimizer.power")
        for (task, *form, power), cells in self.grid(keys, []).items():
            if form == ["vradam", "velocity", "global"]:
                yield task, power, cells[()]

    def tunings(self, task: str, a: str = "vradam", b: str = "adamw") -> list[tuple[float, float]]:
        """The mean test metrics of the tunings of two optimizers, paired by replicate, on a task that has one model and
        schedule."""
        sides = []
        for optimizer in (a, b):
            (arm,) = (arm for arm in self.arms if (arm.task, arm.optimizer) == (task, optimizer))
            key = f"test/{arm.metric}"
            sides.append(
                {replicate: statistics.fmean(part.by_seed(key).values()) for replicate, part in arm.parts.items()}
            )
        ours, theirs = sides
        return [(ours[replicate], theirs[replicate]) for replicate in sorted(ours.keys() & theirs.keys())]

    def differences(self, task: str) -> list[float]:
        """By replicate, what VRAdam's mean is above AdamW's."""
        return [a - b for a, b in self.tunings(task)]

    def log_ratios(self, task: str) -> list[float]:
        """By replicate, the natural logarithm of VRAdam's mean over AdamW's."""
        return [math.log(a / b) for a, b in self.tunings(task)]

    def ahead(self, task: str, of: str = "vradam", baseline: str = "adamw") -> list[str]:
        """The optimizers, the baseline too, whose test mean on a task is better than one's own, the best first."""
        rows = [row for row in self.by_gain(baseline) if row["task"] == task]
        means = {row["a"].split(" ")[0]: row["mean_a"] for row in rows} | {baseline: rows[0]["mean_b"]}
        order = sorted(means, key=lambda name: means[name], reverse=rows[0]["direction"] == "max")
        return order[: order.index(of)]

    def found(self, task: str, optimizer: str, key: str) -> list[Any]:
        """What each search of an optimizer on a task chose for a key, sorted."""
        arms = [arm for arm in self.arms if (arm.task, arm.optimizer) == (task, optimizer)]
        return sorted(record["params"][key] for arm in arms for record in arm.tuned)

    def seconds(self, task: str) -> list[float]:
        """The training time of each run of a task, trials too, in seconds, sorted."""
        runs = (run for run in find_runs(self.records) if run.manifest["choices"]["task"] == task)
        return sorted(run.summary["seconds"]["train"] for run in runs if run.summary is not None)

    def ended(self) -> tuple[int, int, int]:
        """Of the confirmed runs, or of all where nothing was confirmed: how many, how many of them diverged, and how
        many are bad (`statistics.bad_runs`)."""
        rows = self.rows["Every configuration"]
        n, diverged, bad = (sum(row[key] for row in rows) for key in ("n", "diverged", "bad"))
        return n, diverged, bad

    def tunings_of(self, task: str, metric: str) -> list[float]:
        """The means of AdamW's tunings on a task with one model and schedule."""
        (means,) = (means for arm, means in self.tuning_means("adamw", metric) if arm.task == task)
        return means

    def mean(self, arm: Arm, key: str) -> float:
        """The mean of a final metric (`test/length`) over the runs that finished, nan without one."""
        known = [value for value in arm.by_run(key).values() if value == value]
        return statistics.fmean(known) if known else float("nan")

    def within(self, arm: Arm, key: str, low: float, high: float) -> int:
        """How many of an arm's runs have a final metric from `low` to `high`."""
        return sum(low <= value <= high for value in arm.by_run(key).values())

    def lower(self, a: Arm, b: Arm, key: str) -> tuple[int, int]:
        """In how many of the seeds that both have a final metric of `a` is lower than that of `b`, and of how many."""
        ours, theirs = a.by_seed(key), b.by_seed(key)
        both = ours.keys() & theirs.keys()
        return sum(ours[seed] < theirs[seed] for seed in both), len(both)

    @property
    def unigram(self) -> float:
        """The loss of words drawn by their frequency on the validation text, which all runs of it logged."""
        logged = (value for arm in self.arms for value in arm.by_seed("val/unigram_perplexity").values())
        (perplexity,) = {value for value in logged if value == value}
        return math.log(perplexity)

    def _by_schedule(self, baseline: str) -> dict[tuple[str, str, str], dict[str, Arm]]:
        """By task, model and optimizer its arm under each schedule; where only one is there, it is the baseline."""
        places: dict[tuple[str, str, str], dict[str, Arm]] = {}
        for arm in self.arms:
            schedule = arm.settings.get("schedule", baseline)
            places.setdefault((arm.task, arm.model, arm.optimizer), {})[schedule] = arm
        return places

    def schedules(self, baseline: str = "constant") -> list[Comparison]:
        """Each optimizer under each of its other schedules against itself under the baseline: one family."""
        couples = [
            (arm, by[baseline])
            for by in self._by_schedule(baseline).values()
            for schedule, arm in by.items()
            if schedule != baseline and baseline in by
        ]
        return compare(couples, "test", Smallest())

    def leads(self, rival: str = "vradam", other: str = "adamw", baseline: str = "constant") -> list[Lead]:
        """A rival's lead over another optimizer under the baseline schedule and under each other one, by task."""
        places, found = self._by_schedule(baseline), []
        for (task, model, optimizer), ours in places.items():
            theirs = places.get((task, model, other), {})
            if optimizer != rival or baseline not in ours.keys() & theirs.keys():
                continue
            gains = {schedule: _gains(arm, theirs[schedule]) for schedule, arm in ours.items() if schedule in theirs}
            without = gains.pop(baseline)
            found += [Lead(ours[schedule], schedule, without, own) for schedule, own in gains.items()]
        return found

    def lead_across(self, task: str, ours: str, theirs: str) -> np.ndarray:
        """By replicate, VRAdam's lead with the schedule `ours` over AdamW with `theirs`, on a task with one model."""
        by = {optimizer: arms for (name, _, optimizer), arms in self._by_schedule("").items() if name == task}
        return _gains(by["vradam"][ours], by["adamw"][theirs])

    def beside_paper(self, rival: str = "vradam", baseline: str = "adamw") -> list[tuple[dict[str, Any], Comparison]]:
        """The rows of the paper's Table 1 whose task is here, each with the same comparison by loss: one family."""
        rows, couples = [], []
        for row in published()["table1"]:
            here = [arm for arm in self.arms if arm.task == row["same"]["task"]]
            for b in (arm for arm in here if arm.optimizer == baseline):
                for a in (arm for arm in here if arm.optimizer == rival and _setting(arm) == _setting(b)):
                    rows.append(row)
                    couples.append((_by_loss(a), _by_loss(b)))
        return list(zip(rows, compare(couples, "test", Smallest()), strict=True))

    def seed_spread(self, arm: Arm) -> float:
        """The standard deviation over seeds of an arm's test metric, the root mean square over its tunings."""
        variances = [
            statistics.variance(values)
            for part in arm.tunings
            if len(values := [v for v in part.by_seed(f"test/{arm.metric}").values() if v == v]) > 1
        ]
        return statistics.fmean(variances) ** 0.5 if variances else float("nan")

    def spreads(self) -> list[dict[str, Any]]:
        """By task, model and schedule, the `seed_spread` of each optimizer (`{"task": "digits", …, "adamw": 0.01}`) and
        which optimizer has the smallest (`"smallest": "adamw"`)."""
        keys, found = ("task", "model", "schedule"), []
        for place, cells in sorted(self.grid(keys, ["optimizer"]).items()):
            own = {optimizer: self.seed_spread(arm) for (optimizer,), arm in cells.items()}
            found.append(
                {**dict(zip(keys, place, strict=True)), **own, "smallest": min(own, key=lambda name: own[name])}
            )
        return found

    @cached_property
    def curves(self) -> dict[str, RunCurves]:
        """What each run logged, by its arm's label, and its seed where the arm has several."""
        return {
            arm.label if len(arm.over) == 1 else f"{arm.label} seed {run.manifest['seed']}": RunCurves(run)
            for arm in self.arms
            for run in arm.over
        }


def _gains(a: Arm, b: Arm) -> np.ndarray:
    """By replicate, how much better the test metric of `a` is than that of `b`."""
    return np.array(compare([(a, b)], "test", Smallest())[0].pairs.gains)


def _setting(arm: Arm) -> tuple[str, str]:
    """Model and schedule."""
    return arm.model, arm.settings.get("schedule", "")


def _by_loss(arm: Arm) -> Arm:
    """The same runs, told by their loss."""
    return replace(arm, metric="loss", direction="min")
