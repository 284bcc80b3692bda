"""Curves drawn into axes: lines, bands, ends of diverged runs, and limits that no single arm can stretch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vrbench.report.arms import Arm
from vrbench.report.curves import LEAST_SEEDS, Curve, Over, curve, ends
from vrbench.report.style import Look, NoData, headline, legend_below, logarithmic, panels, room
from vrbench.report.view import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAR, FAR_BOTH_WAYS = 30, 3
"""What lies so many times beyond what most lines reach is cut off, and marked at the edge: on an axis that may be
logarithmic, and on others."""
ALIEN = 100
"""A line that reaches so many times as far as the middle one sets no limit."""
DEEPEST = 1e-12
"""The least share of the largest value that a logarithmic axis goes down to."""
AXES: dict[Over, str] = {"step": "step", "seconds": "training time (s)"}


Edge = Literal["top", "bottom"]
"""Where the worst values of a quantity are."""


@dataclass(frozen=True)
class Limits:
    """The values that an axis shows."""

    low: float
    high: float
    logarithmic: bool


def limits(lines: Sequence[Curve], rule: float | None = None, edge: Edge = "top") -> Limits:
    """The limits of an axis by the means of its lines, not by intervals, which may be as wide as the page; of lines
    with one step alone by both.

    Logarithmic where all means are positive and the largest is more than five times the least, and less is better or
    nothing is (`edge`, where the worst is, is the top). Lines of which a run
    diverged, and such as reach `ALIEN` times as far as the middle one, set no limit where there are others: what lies
    `FAR` times beyond the others' reach is outside. `rule`, a value to draw a line at, is inside.
    """
    whole = [line for line in lines if not line.ends] or list(lines)
    means = [_values(line) for line in whole]
    known = sorted(value for line in lines for value in _values(line))
    own = [values for values in means if values]
    extra = [] if rule is None else [rule]
    if not own:
        return Limits(*_spread(known + extra or [0.0]), logarithmic=False)
    positive = known[0] > 0 and edge == "top"
    center = 0.0 if positive else _middle([_middle(values) for values in own])
    reaches = [_share([abs(value - center) for value in values], 0.95) for values in own]
    middle = _middle(reaches) or min((reach for reach in reaches if reach > 0), default=0.0)
    far = FAR if positive else FAR_BOTH_WAYS
    reach = far * max(each for each in reaches if each <= ALIEN * middle) or math.inf
    inside = [value for value in known if abs(value - center) <= reach] + extra
    low, high = min(inside), max(inside)
    if positive and high > 5 * low:
        return Limits(max(low, DEEPEST * high) / 1.3, high * 1.3, logarithmic=True)
    return Limits(*_spread(inside), logarithmic=False)


def _values(line: Curve) -> list[float]:
    """What is to be seen of a line: its means, and where it has one step alone its interval too."""
    values = [*line.mean, *line.low, *line.high] if len(line.steps) == 1 else line.mean
    return [value for value in values if math.isfinite(value)]


def _spread(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    beyond = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return low - beyond, high + beyond


def _middle(values: Sequence[float]) -> float:
    """The lower median."""
    return sorted(values)[(len(values) - 1) // 2]


def _share(values: Sequence[float], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1]


def worse(arm: Arm, key: str) -> Edge:
    """At which edge of the picture a diverged run of a metric is marked."""
    return "bottom" if arm.direction == "max" and key.partition("/")[2] == arm.metric else "top"


def draw(axis: Axes, line: Curve | None, look: Look, label: str) -> None:
    """Mean and interval; a curve that is not there is in the legend all the same."""
    if line is None:
        axis.plot([], [], **look.line, marker=look.marker, label=label)
        return
    every = max(1, len(line.steps) // 6)
    axis.plot(line.steps, line.mean, **look.line, marker=look.marker, markevery=every, label=label)
    if len(line.steps) > 1:
        axis.fill_between(line.steps, line.low, line.high, color=look.color, alpha=0.15, linewidth=0)
    else:
        axis.vlines(line.steps, line.low, line.high, color=look.color)


def frame(axis: Axes, lines: Sequence[tuple[Curve, Look]], edge: Edge = "top", rule: float | None = None) -> None:
    """Set the vertical limits, and mark at the edges what is not inside: × a run that diverged, a triangle a line."""
    found = limits([line for line, _ in lines], rule, edge)
    if found.logarithmic:
        logarithmic(axis, "y", [found.low, found.high])
    axis.set_ylim(found.low, found.high)
    across = axis.get_xaxis_transform()
    for line, look in lines:
        at = [step for step, _ in line.ends]
        height = 0.97 if edge == "top" else 0.03
        axis.plot(at, [height] * len(at), color=look.color, marker="x", markersize=7, linestyle="none",
                  markeredgewidth=1.6, transform=across, label="_ends")  # fmt: skip
        for beyond, place, marker in ((_above, 0.97, "^"), (_below, 0.03, "v")):
            if steps := beyond(line, found):
                axis.plot([steps[0], steps[-1]], [place] * 2, color=look.color, marker=marker, markersize=6,
                          linestyle="none", fillstyle="none", transform=across, label="_beyond")  # fmt: skip
    steps = sorted({step for line, _ in lines for step in [*line.steps, *(step for step, _ in line.ends)]})
    if len(steps) == 1:
        axis.set_xticks(steps)
    elif steps:
        beside = 0.02 * (steps[-1] - steps[0])
        axis.set_xlim(steps[0] - beside, steps[-1] + beside)


def _above(line: Curve, found: Limits) -> list[float]:
    return [step for step, value in zip(line.steps, line.mean, strict=True) if value > found.high]


def _below(line: Curve, found: Limits) -> list[float]:
    return [step for step, value in zip(line.steps, line.mean, strict=True) if value < found.low]


def told(lines: Sequence[Curve], *, crosses: bool = False, marks: bool = False) -> str:
    """What lines, bands and marks are, in one sentence: `Mean over 3 seeds; band: 95 % interval of the mean …`."""
    of = [
        own[-1].count if own[0].seeds == own[-1].seeds else f"{own[0].seeds}–{own[-1].count}"
        for unit in dict.fromkeys(line.unit for line in lines)
        if (own := sorted((line for line in lines if line.unit == unit), key=lambda line: line.seeds))
    ]
    many = any(line.seeds > 1 for line in lines)
    parts = [f"Mean over {' or '.join(of)}" if many else f"One {lines[0].unit}"]
    if any(line.banded for line in lines):
        parts.append(f"band: {' or '.join(dict.fromkeys(line.band for line in lines if line.banded))}")
    else:
        parts.append(f"no band below {LEAST_SEEDS} {lines[0].unit}s")
    if crosses or any(line.ends for line in lines):
        parts.append("×: a run diverged")
    if marks:
        parts.append("△▽: beyond the axis")
    return "; ".join(parts)


def over(arms: Sequence[Arm], keys: Mapping[str, str], view: View, title: str, along: Over = "step",
         rules: Mapping[str, float] = {}) -> Figure:  # fmt: skip
    """One panel a metric that any of the arms has, over steps or training seconds. `keys` has the axes' labels.

    `rules` are values to draw a dashed line at. Raises NoData where no arm has any of them.
    """
    found = {key: {arm.label: line for arm in arms if (line := curve(arm, key, over=along))} for key in keys}
    there = [key for key in keys if found[key]]
    if not there:
        raise NoData("no run has logged " + " or ".join(keys))
    style = view.looks(arms)
    figure, axes = panels(len(there), room(3, size=view.size), height=2.6, size=view.size)
    counts = {label: line.count for key in reversed(there) for label, line in found[key].items()}
    same = len(set(counts.values())) < 2
    marks = crosses = False
    for axis, key in zip(axes, there, strict=True):
        for arm in arms:
            many = "" if same or arm.label not in counts else f", {counts[arm.label]}"
            draw(axis, found[key].get(arm.label), style[arm.label], f"{view.described(arm)}{many}")
        if key in rules:
            axis.axhline(rules[key], color="black", linestyle="--", linewidth=0.9)
        placed = [(line, style[label]) for label, line in found[key].items()]
        lost = [arm for arm in arms if arm.label not in found[key] and arm.diverged]
        placed += [(Curve([], [], [], [], 0, ends(arm, key, along)), style[arm.label]) for arm in lost]
        frame(axis, placed, worse(arms[0], key), rules.get(key))
        crosses = crosses or any(line.ends for line, _ in placed)
        marks = marks or any(line.get_label() == "_beyond" for line in axis.lines)
        axis.set_xlabel(AXES[along])
        axis.set_ylabel(keys[key])
    headline(figure, title)
    lines = [line for key in there for line in found[key].values()]
    legend_below(figure, axes, view.size, told(lines, crosses=crosses, marks=marks))
    return figure
