"""Figures of what was tuned: learning rates and tuning budgets.

Made from arms that differ in a setting, and from the trials of the searches that lie beside them
(`<study>/search/*/trials.json`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vrbench.report import lines
from vrbench.report.arms import Arm
from vrbench.report.curves import Curve, mean_and_interval
from vrbench.report.statistics import Direction, expected_best, rate_band
from vrbench.report.style import Look, NoData, headline, legend_below, logarithmic, looks, panels, room, wrapped
from vrbench.report.view import DEFAULT, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LR = "optimizer.lr"
LEAST_RATES = 3
SPREAD = 0.9
"""The share of draws that the band of one search alone holds."""
BINS = 3
"""Stretches of a decade within which trials, each with a rate of its own, count as of one rate."""


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried, and its best validation."""

    params: Mapping[str, Any]
    value: float
    """The metric itself; nan where a run diverged."""
    seconds: float
    others: str = ""
    """What it had for the settings that are not among `params`."""


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
    a 95 % t interval. One search alone has the spread of its own best (`spread_of_best`), which says nothing of how
    another search would have gone. Searches without a finished trial, and those that tuned the baseline as its own
    control, are left out. An adaptive sampler's trials are not exchangeable: its curve flatters it.
    """
    own = [one for one in found if not one.control and any(math.isfinite(trial.value) for trial in one.trials)]
    several = len({one.schedule for one in own}) > 1
    by_label: dict[str, list[list[float]]] = {}
    last: dict[str, Search] = {}
    for one in own:
        label = f"{one.optimizer} schedule={one.schedule}" if several else one.optimizer
        expected = expected_best([trial.value for trial in one.trials], one.direction, replacement=False)
        by_label.setdefault(label, []).append(expected.tolist())
        last[label] = one
    found_lines = {label: _over_replicates(expected) for label, expected in by_label.items()}
    for label, line in found_lines.items():
        if line.seeds == 1:
            low, high = spread_of_best([trial.value for trial in last[label].trials], last[label].direction)
            found_lines[label] = replace(line, low=low, high=high, band=f"{100 * SPREAD:g} % of all draws of k trials")
    return found_lines


def spread_of_best(values: Sequence[float], direction: Direction) -> tuple[list[float], list[float]]:
    """Between which values the best of k = 1 … n trials lies in `SPREAD` of all draws of k of these n.

    nan (diverged) is as bad as the worst finite value; all nan where there is none. Of the sorted trials, best first,
    the best of k is among the first j with probability 1 - C(n - j, k) / C(n, k).
    """
    known = [value for value in values if math.isfinite(value)]
    n = len(values)
    if not known:
        return [math.nan] * n, [math.nan] * n
    worst = min(known) if direction == "max" else max(known)
    ranked = sorted((value if math.isfinite(value) else worst for value in values), reverse=direction == "max")
    ends: list[list[float]] = []
    for k in range(1, n + 1):
        reached = [1 - math.comb(n - j, k) / math.comb(n, k) for j in range(1, n + 1)]
        bounds = [
            next(j for j in range(n) if reached[j] >= level - 1e-12) for level in ((1 - SPREAD) / 2, (1 + SPREAD) / 2)
        ]
        ends.append(sorted(ranked[j] for j in bounds))
    return [low for low, _ in ends], [high for _, high in ends]


def _over_replicates(own: Sequence[Sequence[float]]) -> Curve:
    """Their mean at each number of trials that all have."""
    least = min(map(len, own))
    values = [list(line[:least]) for line in own]
    mean, low, high = mean_and_interval(values)
    return Curve([float(k) for k in range(1, least + 1)], mean, low, high, len(own), [], "search")


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
        params, others = _numbers(arm.settings, keys), _others(arm.settings, keys)
        for value in arm.by_seed(f"best/val/{arm.metric}").values() if params else ():
            found.setdefault(arm.optimizer, []).append(Trial(params or {}, value, 0.0, others))
    for search in searches(arms):
        for trial in search.trials:
            if (params := _numbers(trial.params, keys)) and search.metric == f"val/{arms[0].metric}":
                others = f"{search.name} {_others(trial.params, keys)}"
                found.setdefault(search.optimizer, []).append(Trial(params, trial.value, trial.seconds, others))
    return found


def _others(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(settings.items()) if key not in keys)


def _numbers(settings: Mapping[str, Any], keys: Sequence[str]) -> dict[str, float] | None:
    try:
        return {key: float(settings[key]) for key in keys}
    except (KeyError, ValueError, TypeError):
        return None


@dataclass(frozen=True)
class Sensitivity:
    """How an optimizer's best validation depends on the rate, the other settings being the best for it."""

    rates: list[float]
    values: list[float]
    """Of the best other settings at each rate, the median over their runs; nan where half of these diverged."""
    points: list[Trial]

    @property
    def lost(self) -> list[float]:
        """The rates of the runs that diverged."""
        return [point.params[LR] for point in self.points if not math.isfinite(point.value)]


def sensitivity(points: Sequence[Trial], direction: Direction) -> Sensitivity:
    """At each rate the best of the other settings. Where those vary and hardly a rate was tried twice, as by a random
    search, trials within a third of a decade count as of one rate, that of the best of them.
    """
    rates = {point.params[LR] for point in points}
    scattered = 2 * len(rates) > len(points) and len({point.others for point in points}) > 1
    bins: dict[float, list[Trial]] = {}
    for point in points:
        rate = point.params[LR]
        bins.setdefault(math.floor(BINS * math.log10(rate)) if scattered else rate, []).append(point)
    line = []
    for own in bins.values():
        by_setting: dict[tuple[float, str], list[float]] = {}
        for point in own:
            by_setting.setdefault((point.params[LR], point.others), []).append(point.value)
        medians = [(_median(values, direction), rate) for (rate, _), values in by_setting.items()]
        ranked = sorted((one for one in medians if math.isfinite(one[0])), reverse=direction == "max")
        value, rate = ranked[0] if ranked else (math.nan, medians[0][1])
        line.append((rate, value))
    line.sort()
    return Sensitivity([rate for rate, _ in line], [value for _, value in line], list(points))


def lr_sensitivity(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """The best validation against `optimizer.lr`, by optimizer: a line through the best of the other settings at each
    rate (`sensitivity`), every run a point behind it. A cross at the edge is a run that diverged; the rates within 5 %
    of the best are said where rates were tried more than once.
    """
    direction = arms[0].direction
    positive = {
        optimizer: [point for point in points if point.params[LR] > 0]
        for optimizer, points in tried(arms, [LR]).items()
        if view.shows_named(optimizer, arms)
    }
    found = {
        optimizer: sensitivity(points, direction)
        for optimizer, points in positive.items()
        if len({point.params[LR] for point in points}) >= LEAST_RATES
    }
    if not found:
        raise NoData(f"no optimizer was tried at {LEAST_RATES} values of {LR} or more")
    style = looks((optimizer, optimizer) for optimizer in found)
    figure, (axis,) = panels(1, height=2.8, width=4.8, size=view.size)
    placed = []
    for optimizer, one in found.items():
        look = style[optimizer]
        finite = [point for point in one.points if math.isfinite(point.value)]
        axis.plot([point.params[LR] for point in finite], [point.value for point in finite], **look.point,
                  alpha=0.25, markersize=3, markeredgewidth=0)  # fmt: skip
        label = _told(view.named(optimizer, arms), one, direction)
        axis.plot(one.rates, one.values, **look.line, marker=look.marker, label=label)
        ends = [(rate, 0.0) for rate in one.lost]
        nothing = [math.nan] * len(one.rates)
        placed.append((Curve(one.rates, one.values, nothing, nothing, 1, ends), look))
    lines.frame(axis, placed, "bottom" if direction == "max" else "top")
    every = [point.params[LR] for one in found.values() for point in one.points]
    logarithmic(axis, "x", every)
    axis.set_xlim(min(every) / 1.3, max(every) * 1.3)
    axis.set_xlabel(LR)
    axis.set_ylabel(f"best validation {arms[0].metric.replace('_', ' ')}")
    headline(figure, f"{arms[0].task}, {arms[0].model}")
    note = "Line: the best of the other settings at each rate; points: every run; ×: diverged"
    legend_below(figure, [axis], view.size, note)
    return figure


def _told(name: str, one: Sensitivity, direction: Direction) -> str:
    runs = f"{name} ({len(one.points)} runs)"
    if len(one.points) == len({point.params[LR] for point in one.points}) or not any(map(math.isfinite, one.values)):
        return runs
    band = rate_band(one.rates, one.values, direction)
    return f"{runs}: within 5 % at {band.low:.2g}–{band.high:.2g}" + (" or further" if band.open else "")


def _median(values: Sequence[float], direction: str) -> float:
    """Median where nan is worse than any number; nan where half of the values are."""
    ranked = sorted((value for value in values if math.isfinite(value)), reverse=direction == "max")
    ranked += [math.nan] * (len(values) - len(ranked))
    return (ranked[(len(values) - 1) // 2] + ranked[len(values) // 2]) / 2


def tuning_budget(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """`budget_curves`, over trials and over the mean seconds that so many took."""
    from matplotlib.ticker import MaxNLocator

    every = searches(arms)
    alike = [search for search in every if search.metric == every[0].metric and not search.control]
    found = [search for search in alike if view.shows_named(search.optimizer, arms)]
    own_lines = budget_curves(found)
    if not own_lines:
        raise NoData("no search with a finished trial lies beside the runs")
    own = {label: [search for search in found if label in _labels(search)] for label in own_lines}
    style = looks((own[label][0].optimizer, label) for label in own_lines)
    figure, axes = panels(2, room(2, size=view.size), height=2.6, width=6.75, size=view.size)
    same = len({line.count for line in own_lines.values()}) == 1
    placed: list[list[tuple[Curve, Look]]] = [[], []]
    for label, line in own_lines.items():
        trials = [trial for search in own[label] for trial in search.trials]
        each = sum(trial.seconds for trial in trials) / len(trials)
        name = view.named(own[label][0].optimizer, arms) + label.removeprefix(own[label][0].optimizer)
        name += "" if same else f", {line.count}"
        for axis, scale, kept in zip(axes, (1.0, each), placed, strict=True):
            scaled = replace(line, steps=[scale * k for k in line.steps])
            lines.draw(axis, scaled, style[label], name)
            kept.append((scaled, style[label]))
    for axis, name, kept in zip(axes, ("trials", "tuning time (s)"), placed, strict=True):
        lines.frame(axis, kept, "bottom" if found[0].direction == "max" else "top")
        axis.set_xlabel(name)
        metric = found[0].metric.partition("/")[2].replace("_", " ")
        axis.set_ylabel(wrapped(f"expected best validation {metric}", 1.6, 9))
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    headline(figure, f"{found[0].task}, {found[0].model}")
    legend_below(figure, axes[:1], view.size, lines.told(list(own_lines.values())))
    return figure


def _labels(search: Search) -> tuple[str, str]:
    return search.optimizer, f"{search.optimizer} schedule={search.schedule}"
