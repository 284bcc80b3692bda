"""Curves out of metrics.jsonl: one value a step and seed, brought onto common steps, with intervals over the seeds.

Of a method that was tuned several times each tuning is one observation: the mean of its seeds.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vrbench.report.arms import Arm
from vrbench.runs.records import Run, read_rows

if TYPE_CHECKING:
    from numpy import ndarray

MOST_POINTS = 300
LEAST_SEEDS = 3
"""An interval of two values is as wide as the page; fewer seeds than this give none."""


Over = Literal["step", "seconds"]


@dataclass(frozen=True)
class Curve:
    """Mean over seeds and its interval at each step; nan in `low` and `high` where fewer than three seeds are there."""

    steps: list[float]
    """Or whatever it runs over: training seconds, trials."""
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int
    """How many observations it is the mean of: seeds, tunings, searches."""
    ends: list[tuple[float, float]]
    """Step and last value of each diverged run. The mean goes on over the seeds that are left."""
    unit: Literal["seed", "tuning", "search"] = "seed"
    band: str = "95 % t interval of the mean"
    """What `low` and `high` are."""

    @property
    def count(self) -> str:
        """Of what it is the mean: `3 seeds`."""
        plural = "es" if self.unit == "search" else "s"
        return f"{self.seeds} {self.unit}{plural if self.seeds != 1 else ''}"

    @property
    def banded(self) -> bool:
        """Whether it has an interval anywhere."""
        return any(map(math.isfinite, self.low))


def columns(run: Run) -> Mapping[str, tuple[ndarray, ndarray]]:
    """Of each metric of metrics.jsonl the steps and the values that are finite, as float arrays of one length.

    Raises ValueError for a file that is not JSON lines.
    """
    path = run.directory / "metrics.jsonl"
    if not path.exists():
        return {}
    state = path.stat()
    return _columns(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _columns(path: Path, mtime: int, size: int) -> dict[str, tuple[ndarray, ndarray]]:
    import numpy as np

    found: dict[str, tuple[array[float], array[float]]] = {}
    for row in read_rows(path):
        for key, value in row.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                steps, values = found.setdefault(key, (array("d"), array("d")))
                steps.append(float(row["step"]))
                values.append(float(value))
    return {key: (np.array(steps), np.array(values)) for key, (steps, values) in found.items()}


def curve(arm: Arm, key: str, most: int = MOST_POINTS, over: Over = "step") -> Curve | None:
    """The arm's curve of one metric over its seeds, at `most` steps or fewer; None where no run has the metric.

    Seeds are brought onto common steps by linear interpolation, within the steps that each of them has and never
    beyond. Where there are more than `most` steps, equal stretches of steps are averaged, seed by seed. `over` seconds,
    steps are the training seconds that they took, evaluation and probes off the clock. The interval is that of
    `_interval`, 95 %, of the mean at each step by itself; of an arm that was tuned several times, over the tunings.
    """
    import numpy as np

    own = [(run, *columns(run)[key]) for run in arm.runs if key in columns(run)]
    if over == "seconds":
        timed = [(run, seconds(run, steps), y) for run, steps, y in own]
        own = [(run, at, y) for run, at, y in timed if at is not None]
    if not own:
        return None
    grid = np.unique(np.concatenate([steps for _, steps, _ in own]))
    values = np.stack([np.interp(grid, steps, y, left=math.nan, right=math.nan) for _, steps, y in own])
    if len(grid) > most:
        edges = np.linspace(grid[0], grid[-1], most + 1)
        part = np.clip(np.searchsorted(edges, grid, side="right") - 1, 0, most - 1)
        stretches = np.split(np.arange(len(grid)), np.unique(part, return_index=True)[1][1:])  # steps are sorted
        grid = np.array([grid[places].mean() for places in stretches])
        values = np.stack([_mean(values[:, places]) for places in stretches], axis=1)
    tuning = _tunings(arm, [run for run, _, _ in own])
    if tuning is not None:
        values = np.stack([_mean(values[tuning == each].T) for each in np.unique(tuning)])
    low, high = _interval(values)
    mean = _mean(values.T)
    unit: Literal["seed", "tuning"] = "seed" if tuning is None else "tuning"
    return Curve(grid.tolist(), mean.tolist(), low.tolist(), high.tolist(), len(values), ends(arm, key, over), unit)


def ends(arm: Arm, key: str, over: Over = "step") -> list[tuple[float, float]]:
    """Where each diverged run of an arm ended: step of its last row with the metric, and value there; without such a
    row its last step that was finite, and nan. Over seconds, runs whose rows have no time are left out."""
    import numpy as np

    found = []
    for run in arm.over:
        if run.status != "diverged" or run.summary is None:
            continue
        steps, values = columns(run).get(key, (np.array([float(run.summary["steps"] or 0)]), np.array([math.nan])))
        at = steps if over == "step" else seconds(run, steps)
        if at is not None:
            found.append((float(at[-1]), float(values[-1])))
    return found


def seconds(run: Run, steps: ndarray) -> ndarray | None:
    """The training seconds that so many steps took, by the run's `time/steps_per_s`; None where no row has it."""
    import numpy as np

    if "time/steps_per_s" not in columns(run):
        return None
    at, rate = columns(run)["time/steps_per_s"]
    spent = np.cumsum(np.diff(at, prepend=0.0) / rate)
    return np.interp(steps, [0.0, *at], [0.0, *spent])


def _tunings(arm: Arm, runs: Sequence[Run]) -> ndarray | None:
    """Of each run which tuning of the method it is of; None where the arm is one configuration."""
    import numpy as np

    if not arm.parts:
        return None
    of = {run.directory: number for number, part in arm.parts.items() for run in part.runs}
    return np.array([of[run.directory] for run in runs])


def _mean(values: ndarray) -> ndarray:
    """Mean over the last axis of what is not nan; nan where nothing is left."""
    import numpy as np

    there = np.isfinite(values)
    count = there.sum(axis=-1)
    return np.where(count > 0, np.where(there, values, 0.0).sum(axis=-1) / np.maximum(count, 1), math.nan)


def _interval(values: ndarray) -> tuple[ndarray, ndarray]:
    """Bounds of the mean over the first axis (seeds), of what is not nan; nan where fewer than three seeds are left.

    Student's, 95 %. Where all values are positive, as losses are, it is taken of the mean's logarithm, whose standard
    error is that of the mean over the mean (the delta method): it stays positive, and is Student's where it is narrow.
    """
    import numpy as np
    from scipy.stats import t

    there = np.isfinite(values)
    count = there.sum(axis=0)
    mean = _mean(values.T)
    squares = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0)
    enough = count >= LEAST_SEEDS
    freedom = np.where(enough, count - 1, 1)
    half = t.ppf(0.975, freedom) * np.sqrt(squares / freedom / np.maximum(count, 1))
    half = np.where(enough, half, math.nan)
    if there.any() and (values[there] > 0).all():
        factor = np.exp(half / mean)
        return mean / factor, mean * factor
    return mean - half, mean + half


def mean_and_interval(rows: Sequence[Sequence[float]]) -> tuple[list[float], list[float], list[float]]:
    """Mean and bounds over rows of one length (seeds, replicates), at each place by itself; nan as in `Curve`."""
    import numpy as np

    values = np.array(rows, dtype=np.float64)
    low, high = _interval(values)
    return _mean(values.T).tolist(), low.tolist(), high.tolist()


def groups(arms: Sequence[Arm]) -> dict[tuple[str, str], list[Arm]]:
    """The arms by task and model: what may be drawn into one chart."""
    found: dict[tuple[str, str], list[Arm]] = {}
    for arm in arms:
        found.setdefault((arm.task, arm.model), []).append(arm)
    return found


def best(arm: Arm) -> float:
    """Mean over seeds of the best validation as a cost (less is better); infinite where a run diverged or none is."""
    values = list(arm.by_seed(f"best/val/{arm.metric}").values())
    if not values or not all(map(math.isfinite, values)):
        return math.inf
    mean = math.fsum(values) / len(values)
    return -mean if arm.direction == "max" else mean


def ranked(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Of each optimizer its arms in one task: those with the most runs first, of them the best by validation."""
    found: dict[str, list[Arm]] = {}
    for arm in sorted(arms, key=lambda arm: (-len(arm.over), best(arm))):
        found.setdefault(arm.optimizer, []).append(arm)
    return found


def leading(arms: Sequence[Arm]) -> dict[str, Arm]:
    """Of each optimizer the arm that speaks for it in one task, the first of `ranked`."""
    return {optimizer: own[0] for optimizer, own in ranked(arms).items()}


def representative(arms: Sequence[Arm], most: int) -> list[Arm]:
    """At most `most` of the arms of one task: first the best of each optimizer by validation, then the second best, ….

    They keep their order.
    """
    costs = [best(arm) for arm in arms]
    places: dict[int, tuple[int, float]] = {}
    seen: Counter[str] = Counter()
    for number in sorted(range(len(arms)), key=costs.__getitem__):
        optimizer = arms[number].optimizer
        places[number] = seen[optimizer], costs[number]
        seen[optimizer] += 1
    kept = sorted(sorted(places, key=places.__getitem__)[:most])
    return [arms[number] for number in kept]
