"""Figures of what was tuned: learning rates, tuning budgets, heat maps.

Made from arms that differ in a setting, and from the trials of the searches that lie beside them
(`<study>/search/*/trials.json`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vrbench.report.arms import Arm
from vrbench.report.curves import Curve, mean_and_interval
from vrbench.report.statistics import Direction, expected_best, rate_band
from vrbench.report.style import NoData, legend_below, logarithmic, looks, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LR = "optimizer.lr"
LEAST_RATES = 3


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried, and its best validation."""

    params: Mapping[str, Any]
    value: float
    """The metric itself; nan where a run diverged."""
    seconds: float


@dataclass(frozen=True)
class Search:
    """The trials of one search that are over, in the order in which they were begun. Pruned and broken ones are not."""

    name: str
    task: str
    model: str
    optimizer: str
    metric: str
    """With its split: `val/accuracy`."""
    direction: Direction
    trials: list[Trial]
    schedule: str = ""
    control: bool = False
    """Whether it tuned the baseline once more, against itself."""


def searches(arms: Sequence[Arm]) -> list[Search]:
    """The searches of the studies that the arms' runs belong to, for the arms' tasks and models.

    Raises ValueError for a trials.json that is not JSON.
    """
    primary = {(arm.task, arm.model): (f"val/{arm.metric}", arm.direction) for arm in arms}
    studies = {study for arm in arms for run in arm.runs for study in list(run.directory.resolve().parents)[:2]}
    found = []
    for path in sorted(path for study in studies for path in study.glob("search/*/trials.json")):
        summary = json.loads(path.read_bytes())
        choices, settings = summary["choices"], summary["settings"]
        key = choices["task"], choices["model"]
        if key not in primary:
            continue
        metric, direction = primary[key]
        if settings["metric"] is not None:
            metric, direction = settings["metric"], settings["direction"]
        trials = [
            Trial(trial["params"], _value(trial["cost"], direction), float(trial["seconds"] or 0.0))
            for trial in summary["trials"]
            if trial["state"] in ("finished", "diverged")
        ]
        what = summary["name"], *key, choices["optimizer"], metric, direction, trials
        found.append(Search(*what, choices.get("schedule", ""), settings.get("control", False)))
    return found


def budget_curves(found: Sequence[Search]) -> dict[str, Curve]:
    """The expected best validation after k trials, by optimizer (and schedule, where there are several), of one task.

    Each search has its unbiased curve (`expected_best` without replacement); of replicates the mean, from three on with
    Student's 95 % interval. Searches without a finished trial, and those that tuned the baseline as its own control,
    are left out. An adaptive sampler's trials are not exchangeable: its curve flatters it.
    """
    own = [one for one in found if not one.control and any(math.isfinite(trial.value) for trial in one.trials)]
    several = len({one.schedule for one in own}) > 1
    by_label: dict[str, list[list[float]]] = {}
    for one in own:
        label = f"{one.optimizer} schedule={one.schedule}" if several else one.optimizer
        expected = expected_best([trial.value for trial in one.trials], one.direction, replacement=False)
        by_label.setdefault(label, []).append(expected.tolist())
    return {label: _over_replicates(lines) for label, lines in by_label.items()}


def _over_replicates(lines: Sequence[Sequence[float]]) -> Curve:
    """Their mean at each number of trials that all have."""
    least = min(map(len, lines))
    values = [list(line[:least]) for line in lines]
    mean, low, high = mean_and_interval(values)
    return Curve([float(k) for k in range(1, least + 1)], mean, low, high, len(lines), [])


def _value(cost: float | None, direction: str) -> float:
    if cost is None or not math.isfinite(cost):
        return math.nan
    return -cost if direction == "max" else cost


def tried(arms: Sequence[Arm], keys: Sequence[str]) -> dict[str, list[Trial]]:
    """By optimizer, what arms and trials of one task say of numeric settings: each has a number for every key.

    Arms that are a search's trials are left out: its trials.json has them.
    """
    found: dict[str, list[Trial]] = {}
    for arm in arms:
        if arm.settings.get("runs") == "tuning":
            continue
        params = _numbers(arm.settings, keys)
        for value in arm.by_seed(f"best/val/{arm.metric}").values() if params else ():
            found.setdefault(arm.optimizer, []).append(Trial(params or {}, value, 0.0))
    for search in searches(arms):
        for trial in search.trials:
            if (params := _numbers(trial.params, keys)) and search.metric == f"val/{arms[0].metric}":
                found.setdefault(search.optimizer, []).append(Trial(params, trial.value, trial.seconds))
    return found


def _numbers(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, float] | None:
    try:
        return {key: float(settings[key]) for key in keys}
    except (KeyError, ValueError, TypeError):
        return None


def lr_sensitivity(arms: Sequence[Arm]) -> Figure:
    """The best validation against `optimizer.lr`, by optimizer: every run a point, a line through each rate's median.

    Other settings are whatever the runs had. A cross at the bottom is a run that diverged. Line and band (the rates
    within 5 % of the best) are for rates that were tried more than once; trials of a search, each with a rate of its
    own, are points alone.
    """
    found = {
        optimizer: points
        for optimizer, points in tried(arms, [LR]).items()
        if len({point.params[LR] for point in points}) >= LEAST_RATES
    }
    if not found:
        raise NoData(f"no optimizer was tried at {LEAST_RATES} values of {LR} or more")
    style = looks(found)
    figure, (axis,) = panels(1, 1, height=3.2, width=4.8)
    for optimizer, points in found.items():
        look = style[optimizer]
        rates = sorted({point.params[LR] for point in points})
        finite = [point for point in points if math.isfinite(point.value)]
        repeated = len(points) > len(rates)
        axis.plot([point.params[LR] for point in finite], [point.value for point in finite], **look.point, alpha=0.5)
        medians = [_median([p.value for p in points if p.params[LR] == rate], arms[0].direction) for rate in rates]
        label = optimizer
        if repeated and any(map(math.isfinite, medians)):
            band = rate_band(rates, medians, arms[0].direction)
            label += f": within 5 % at {band.low:.2g}–{band.high:.2g}" + (" or further" if band.open else "")
        axis.plot(rates, medians if repeated else [math.nan] * len(rates), **look.line, marker=look.marker, label=label)
        lost = [point.params[LR] for point in points if not math.isfinite(point.value)]
        axis.plot(
            lost, [0.02] * len(lost), transform=axis.get_xaxis_transform(), color=look.color, marker="x", linestyle=""
        )
    logarithmic(axis, "x", [point.params[LR] for points in found.values() for point in points])
    axis.set_xlabel("optimizer.lr")
    axis.set_ylabel(f"best validation {arms[0].metric.replace('_', ' ')}")
    axis.set_title(f"{arms[0].task}, {arms[0].model} (×: diverged)")
    legend_below(figure, axis)
    return figure


def _median(values: Sequence[float], direction: str) -> float:
    """Median where nan is worse than any number; nan where half of the values are."""
    ranked = sorted((value for value in values if math.isfinite(value)), reverse=direction == "max")
    ranked += [math.nan] * (len(values) - len(ranked))
    return (ranked[(len(values) - 1) // 2] + ranked[len(values) // 2]) / 2


def tuning_budget(arms: Sequence[Arm]) -> Figure:
    """`budget_curves`, over trials and over the mean seconds that so many took."""
    from matplotlib.ticker import MaxNLocator

    every = searches(arms)
    found = [search for search in every if search.metric == every[0].metric and not search.control]
    lines = budget_curves(found)
    if not lines:
        raise NoData("no search with a finished trial lies beside the runs")
    style = looks(lines)
    figure, axes = panels(1, 2, height=3.0)
    for label, line in lines.items():
        own = [
            search for search in found if label in (search.optimizer, f"{search.optimizer} schedule={search.schedule}")
        ]
        trials = [trial for search in own for trial in search.trials]
        each = sum(trial.seconds for trial in trials) / len(trials)
        look, several = style[label], f", {line.seeds} searches" if line.seeds > 1 else ""
        text = f"{label} ({len(line.steps)} trials{several})"
        axes[0].plot(line.steps, line.mean, **look.line, marker=look.marker, label=text)
        axes[1].plot([each * k for k in line.steps], line.mean, **look.line, marker=look.marker)
        for axis, scale in zip(axes, (1.0, each), strict=True):
            axis.fill_between([scale * k for k in line.steps], line.low, line.high, color=look.color, alpha=0.15)
    for axis, name in zip(axes, ("trials", "tuning time (s)"), strict=True):
        axis.set_xlabel(name)
        axis.set_ylabel(f"expected best {found[0].metric}")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"{found[0].task}, {found[0].model}")
    legend_below(figure, axes[0])
    return figure


def _heat_map(arms: Sequence[Arm], key: str) -> Figure:
    """The best validation over the rate and another setting: cells where they were tried as a grid, else points."""
    found = {
        optimizer: points
        for optimizer, points in tried(arms, [LR, key]).items()
        if len({p.params[LR] for p in points}) > 1 and len({p.params[key] for p in points}) > 1
    }
    if not found:
        raise NoData(f"{LR} and {key} were not varied together")
    finite = [point.value for points in found.values() for point in points if math.isfinite(point.value)]
    if not finite:
        raise NoData("every run diverged")
    from matplotlib.colors import Normalize

    norm = Normalize(min(finite), max(finite))
    figure, axes = panels(1, len(found), height=3.4, width=4.6 * len(found))
    for axis, (optimizer, points) in zip(axes, found.items(), strict=True):
        rates, others = (sorted({point.params[name] for point in points}) for name in (LR, key))
        whole = {(point.params[LR], point.params[key]) for point in points}
        drawn = _cells if 2 * len(whole) >= len(rates) * len(others) else _points
        image = drawn(axis, points, rates, others, key, norm)
        axis.set_xlabel(LR)
        axis.set_ylabel(key)
        axis.set_title(f"{arms[0].task}, {arms[0].model}, {optimizer} (×: diverged)")
    figure.colorbar(image, ax=axes, label=f"best validation {arms[0].metric.replace('_', ' ')}")
    return figure


def _cells(
    axis: Axes, points: Sequence[Trial], rates: Sequence[float], others: Sequence[float], key: str, norm: Any
) -> Any:
    """The mean of each cell, written into it; a cross where all of its runs diverged, white where nothing was tried."""
    values = [[_mean_of(points, rate, other, key) for rate in rates] for other in others]
    image = axis.pcolormesh(values, cmap="viridis", norm=norm, edgecolors="white", linewidth=1)
    there = {(point.params[LR], point.params[key]) for point in points}
    for row, other in enumerate(others):
        for column, rate in enumerate(rates):
            value = values[row][column]
            dark = math.isfinite(value) and norm(value) < 0.6
            text = f"{value:.3g}" if math.isfinite(value) else "×" if (rate, other) in there else ""
            color = "white" if dark else "black"
            axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=8, color=color)
    axis.set_xticks([place + 0.5 for place in range(len(rates))], [f"{rate:.2g}" for rate in rates])
    axis.set_yticks([place + 0.5 for place in range(len(others))], [f"{other:.3g}" for other in others])
    axis.grid(visible=False)
    return image


def _mean_of(points: Sequence[Trial], rate: float, other: float, key: str) -> float:
    own = [p.value for p in points if p.params[LR] == rate and p.params[key] == other and math.isfinite(p.value)]
    return math.fsum(own) / len(own) if own else math.nan


def _points(
    axis: Axes, points: Sequence[Trial], rates: Sequence[float], others: Sequence[float], key: str, norm: Any
) -> Any:
    """Each trial at its place, with the metric as its colour."""
    finite = [point for point in points if math.isfinite(point.value)]
    lost = [point for point in points if not math.isfinite(point.value)]
    image = axis.scatter(
        [p.params[LR] for p in finite],
        [p.params[key] for p in finite],
        c=[p.value for p in finite],
        norm=norm,
        cmap="viridis",
        s=55,
        edgecolors="black",
        linewidths=0.6,
    )
    axis.plot([p.params[LR] for p in lost], [p.params[key] for p in lost], "x", color="black")
    logarithmic(axis, "x", rates)
    return image


def beta3_heat_map(arms: Sequence[Arm]) -> Figure:
    """The best validation over VRAdam's rate and its velocity penalty β3."""
    return _heat_map(arms, "optimizer.beta3")


def alpha1_heat_map(arms: Sequence[Arm]) -> Figure:
    """The best validation over VRAdam's rate and α1, which bounds the rate from below."""
    return _heat_map(arms, "optimizer.alpha1")
