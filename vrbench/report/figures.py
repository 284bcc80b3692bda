"""Figures of any number of runs, in one style: PNG for screens, SVG for papers.

Each function takes arms and returns a matplotlib Figure, or raises NoData with the reason in a few words; `write` saves
what there is and says why the rest is not there.
"""

from __future__ import annotations

import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrbench.report import eos_figure, forest
from vrbench.report.arms import Arm
from vrbench.report.curves import Curve, columns, curve, groups, label_of, leading, representative
from vrbench.report.looks import Looks
from vrbench.report.rivals import rivals
from vrbench.report.search_figures import alpha1_heat_map, beta3_heat_map, lr_sensitivity, tuning_budget
from vrbench.report.statistics import performance_profile as profile_of
from vrbench.report.statistics import time_to_target as reached
from vrbench.report.style import Look, NoData, legend_below, logarithmic, looks, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ARMS = 8
"""Lines in one panel: more cannot be told apart."""
ARROWS = {"min": "↓", "max": "↑"}


def write(arms: Sequence[Arm], output: Path) -> list[Path]:
    """Save every figure that the arms have data for below `output`, as PNG and SVG, and return the files.

    A figure without data is not written, and one line on the console says why. Raises OSError where `output` cannot be
    written.
    """
    output.mkdir(parents=True, exist_ok=True)
    written, missing = [], defaultdict[str, list[str]](list)
    for name, of, draw in _wanted(arms):
        try:
            with styled():
                figure = draw()
                for suffix in ("png", "svg"):
                    path = output / f"{_file(name, of)}.{suffix}"
                    figure.savefig(path, dpi=200, metadata={"Date": None} if suffix == "svg" else None)
                    written.append(path)
        except NoData as reason:
            missing[f"{name}: {reason}"].append(of)
    for line, of_these in missing.items():
        of_what = f" ({'; '.join(of_these)})" if any(of_these) else ""
        print(f"vrbench-report: no figure {line}{of_what}", file=sys.stderr)
    return written


def _wanted(arms: Sequence[Arm]) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    """Name of each figure, what it is of, and its maker."""
    for (task, model), own in groups(arms).items():
        for name, make in PER_TASK.items():
            yield name, f"{task} {model}", partial(make, own)
        measured = [arm for arm in representative(own, MOST_ARMS) if has_eos(arm)]
        for arm in measured:
            yield "eos", f"{task} {model} {arm.label}", partial(edge_of_stability, [arm])
        if not measured:
            yield "eos", f"{task} {model}", partial(edge_of_stability, [])
    yield "performance-profile", "", partial(performance_profile, arms)
    yield "forest", "", lambda: forest.figure(rivals(arms, MOST_ARMS, Looks(), "figure"))


def _file(name: str, of: str) -> str:
    """A file name of plain letters."""
    return "-".join(re.sub(r"[^A-Za-z0-9._=]+", "-", part).strip("-") for part in (name, of) if part)


def learning_curves(arms: Sequence[Arm]) -> Figure:
    """Training loss, validation loss and the primary metric of one task over the steps: means and 95 % intervals."""
    first, drawn = arms[0], representative(arms, MOST_ARMS)
    keys = list(dict.fromkeys(["train/loss", "val/loss", f"val/{first.metric}"]))
    found = {key: {arm.label: line for arm in drawn if (line := curve(arm, key))} for key in keys}
    keys = [key for key in keys if found[key]]
    if not keys:
        raise NoData("no run has logged a row")
    style = looks(arm.label for arm in arms)
    figure, axes = panels(1, len(keys), height=3.0)
    for axis, key in zip(axes, keys, strict=True):
        for arm in drawn:
            _draw(axis, found[key].get(arm.label), style[arm.label], label_of(arm))
        _frame(axis, list(found[key].values()))
        axis.set_xlabel("step")
        axis.set_ylabel(_named(key, first))
    figure.suptitle(_headline(arms, drawn))
    legend_below(figure, axes[0])
    return figure


def _draw(axis: Axes, line: Curve | None, look: Look, label: str) -> None:
    """Mean, interval and the ends of diverged runs; a curve that is not there is in the legend all the same."""
    if line is None:
        axis.plot([], [], **look.line, marker=look.marker, label=label)
        return
    every = max(1, len(line.steps) // 6)
    axis.plot(line.steps, line.mean, **look.line, marker=look.marker, markevery=every, label=label)
    if len(line.steps) > 1:
        axis.fill_between(line.steps, line.low, line.high, color=look.color, alpha=0.15, linewidth=0)
    else:
        axis.vlines(line.steps, line.low, line.high, color=look.color)
    for step, value in line.ends:
        axis.plot(step, value, color=look.color, marker="x", markersize=7, linestyle="none")


def _frame(axis: Axes, lines: Sequence[Curve]) -> None:
    """Limits by the means, not by their intervals, which may be as wide as the page; logarithmic where that helps."""
    finite = [value for line in lines for value in line.mean if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if low > 0 and high > 5 * low:
        logarithmic(axis, "y", finite)
        axis.set_ylim(low / 1.3, high * 1.3)
    else:
        room = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
        axis.set_ylim(low - room, high + room)
    steps = {step for line in lines for step in line.steps}
    if len(steps) == 1:
        axis.set_xticks(list(steps))


def _named(key: str, arm: Arm) -> str:
    split, metric = key.split("/", 1)
    arrow = f" {ARROWS[arm.direction]}" if metric == arm.metric else ""
    return f"{'training' if split == 'train' else 'validation'} {metric.replace('_', ' ')}{arrow}"


def _headline(arms: Sequence[Arm], drawn: Sequence[Arm]) -> str:
    title = f"{arms[0].task}, {arms[0].model}"
    return title if len(drawn) == len(arms) else f"{title}: the best {len(drawn)} of {len(arms)} by validation"


def target_of(arms: Sequence[Arm]) -> float:
    """The validation that half of all runs of these arms reach, diverged ones counted as never: a target for all alike.

    Raises NoData where fewer than half of the runs have a best validation.
    """
    values = [value for arm in arms for value in arm.by_seed(f"best/val/{arm.metric}").values()]
    ranked = sorted((value for value in values if math.isfinite(value)), reverse=arms[0].direction == "max")
    half = (len(values) + 1) // 2
    if not values or len(ranked) < half:
        raise NoData("fewer than half of the runs have a validation")
    return ranked[half - 1]


def time_to_target(arms: Sequence[Arm]) -> Figure:
    """Share of an arm's runs that have reached the target, over training seconds (evaluation is off the clock)."""
    first, drawn = arms[0], representative(arms, MOST_ARMS)
    target, key = target_of(drawn), f"val/{first.metric}"
    style = looks(arm.label for arm in arms)
    figure, (axis,) = panels(1, 1, height=3.0, width=4.5)
    times = {
        arm.label: sorted(reached(list(run.rows()), key, target, first.direction).seconds for run in arm.over)
        for arm in drawn
    }
    end = max((time for own in times.values() for time in own if math.isfinite(time)), default=0.0)
    if end == 0:
        raise NoData("no run's rows have the time at which it reached the target")
    for label, own in times.items():
        there = [time for time in own if math.isfinite(time)]
        x = [0.0, *there, 1.05 * end]
        y = [share / len(own) for share in [*range(len(there) + 1), len(there)]] if own else [0.0] * len(x)
        look = style[label]
        axis.step(x, y, where="post", **look.line, marker=look.marker, markevery=range(1, len(there) + 1), label=label)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlim(0, 1.05 * end)
    axis.set_xlabel("training time (s)")
    axis.set_ylabel("share of runs at the target")
    sign = "≥" if first.direction == "max" else "≤"
    axis.set_title(f"target: validation {first.metric} {sign} {target:.4g}, reached by half of all runs")
    figure.suptitle(_headline(arms, drawn))
    legend_below(figure, axis)
    return figure


def cost(arms: Sequence[Arm]) -> Figure:
    """Training time per step and peak memory of each arm: the mean as a bar, every run as a dot."""
    drawn = [arm for arm in representative(arms, 2 * MOST_ARMS) if arm.seconds]
    if not drawn:
        raise NoData("no run is finished")
    style = looks(arm.label for arm in arms)
    figure, axes = panels(1, 2, height=1.1 + 0.28 * len(drawn))
    sides = (("training time per step (ms)", _milliseconds), ("peak memory of the process (MiB)", _mebibytes))
    for axis, (name, measure) in zip(axes, sides, strict=True):
        for place, arm in enumerate(reversed(drawn)):
            values = measure(arm)
            if values:
                look = style[arm.label]
                axis.barh(place, sum(values) / len(values), color=look.color, alpha=0.35, height=0.7)
                axis.plot(values, [place] * len(values), **look.point)
        axis.set_xlabel(name)
        axis.set_xlim(left=0)
        axis.grid(axis="y", visible=False)
        axis.set_yticks(
            range(len(drawn)), [arm.label for arm in reversed(drawn)] if axis is axes[0] else [""] * len(drawn)
        )
    figure.suptitle(_headline([arm for arm in arms if arm.seconds], drawn))
    return figure


def _milliseconds(arm: Arm) -> list[float]:
    finished = [run.summary for run in arm.over if run.summary and run.status == "finished"]
    return [1e3 * summary["seconds"]["train"] / summary["steps"] for summary in finished]


def _mebibytes(arm: Arm) -> list[float]:
    """The device's peak where there is one, else that of the process, which the runs of one multirun share."""
    found = [run.manifest.get("peak_device_memory_bytes", run.manifest.get("peak_memory_bytes")) for run in arm.over]
    return [value / 2**20 for value in found if value is not None]


def has_eos(arm: Arm) -> bool:
    """Whether a run of the arm was measured with probe=eos."""
    return any(key.startswith("eos/") for run in arm.runs[:1] for key in columns(run))


def edge_of_stability(arms: Sequence[Arm]) -> Figure:
    """Sharpness, threshold, ratio, rate, velocity and loss of the first measured run of the arms."""
    for arm in arms:
        if has_eos(arm):
            run = arm.runs[0]
            return eos_figure.figure(
                list(run.rows()), f"{arm.task}, {arm.model}, {arm.label}, seed {run.manifest['seed']}"
            )
    raise NoData("no run has eos/ metrics; train with probe=eos")


def performance_profile(arms: Sequence[Arm]) -> Figure:
    """Share of runs whose cost on test is within a factor of the best, over all tasks alike, with 95 % bands.

    Each task's best arm of an optimizer speaks for it (`curves.leading`). The factor is the value over the best
    optimizer's mean where less is better, and the reverse where more is; a diverged run has none (Dolan and Moré 2002;
    arXiv 2108.13264). Tasks with a value that is not positive are left out.
    """
    import numpy as np

    factors: dict[str, list[list[float]]] = {}
    tasks = 0
    for own in groups(arms).values():
        by_seed = {name: arm.by_seed(f"test/{arm.metric}") for name, arm in leading(own).items()}
        values = {name: list(found.values()) for name, found in by_seed.items() if found}
        means = [sum(one) / len(one) for one in values.values() if one and all(map(math.isfinite, one))]
        if (
            len(values) < 2
            or not means
            or not all(value > 0 or math.isnan(value) for v in values.values() for value in v)
        ):
            continue
        tasks += 1
        more = own[0].direction == "max"
        top = max(means) if more else min(means)
        for name, one in values.items():
            factors.setdefault(name, []).append([top / value if more else value / top for value in one])
    if tasks < 2:
        raise NoData("it takes two tasks, each with a positive test metric of two optimizers")
    style = looks(arm.optimizer for arm in arms)
    figure, (axis,) = panels(1, 1, height=3.0, width=4.5)
    finite = [factor for per_task in factors.values() for one in per_task for factor in one if math.isfinite(factor)]
    ratios = np.geomspace(min(finite), 1.05 * max(finite), 60)
    for name, per_task in factors.items():
        share, low, high = profile_of([-np.array(one) for one in per_task], -ratios)
        look = style[name]
        missing = f" ({len(per_task)} of the tasks)" if len(per_task) < tasks else ""
        axis.plot(ratios, share, **look.line, marker=look.marker, markevery=8, label=f"{name}{missing}")
        axis.fill_between(ratios, low, high, color=look.color, alpha=0.15, linewidth=0)
    logarithmic(axis, "x", ratios)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel("cost on test ÷ the best optimizer's mean cost")
    axis.set_ylabel("share of runs within")
    axis.set_title(f"{tasks} tasks, each of equal weight")
    legend_below(figure, axis)
    return figure


PER_TASK: dict[str, Callable[[Sequence[Arm]], Any]] = {
    "curves": learning_curves,
    "time-to-target": time_to_target,
    "lr-sensitivity": lr_sensitivity,
    "tuning-budget": tuning_budget,
    "beta3-lr": beta3_heat_map,
    "alpha1-lr": alpha1_heat_map,
    "cost": cost,
}
"""Figures that are drawn once for each task and model."""
