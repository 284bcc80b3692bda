"""Charts of the page as plain numbers: where each line, band, mark and tick lies, and what the cursor reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from vrbench.report.curves import Curve
from vrbench.report.lines import Edge, Limits, limits, told
from vrbench.report.style import Look

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 20, 10, 40
"""Margins around the plot."""
MARKS = 6
"""Marks a line."""


@dataclass(frozen=True)
class Line:
    """One line of a chart as the template draws it."""

    label: str
    color: int
    """Number of its colour's CSS class."""
    dash: str
    """`stroke-dasharray`; empty: unbroken."""
    mark: int
    """Number of its symbol."""
    path: str
    band: str
    marks: list[tuple[float, float]]
    ends: list[tuple[float, float]]
    """Where diverged runs ended: at the edge, above or below which no value is worse."""
    last: str
    """Its last value, as the cursor would read it."""


@dataclass(frozen=True)
class Chart:
    """One chart: geometry in the units of a view box of WIDTH × HEIGHT."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    rule: float | None
    """Height of a horizontal reference line."""
    unit: str
    """What its horizontal axis counts: `step`, `trial`."""
    note: str
    """What its lines and bands are."""
    cursor: dict[str, Any]
    """What the page's script needs: `left` and `right` (the plot's edges), `from` and `to` (the steps there), their
    `unit`, `steps` to stop at, and of each line `steps`, `mean`, `low`, `high` (null: unknown)."""

    @property
    def description(self) -> str:
        """The chart in words."""
        return f"{self.title} over {self.unit}s. At the end: " + ", ".join(
            f"{line.label} {line.last}" for line in self.lines
        )


def chart(
    title: str,
    curves: Sequence[tuple[str, Look, Curve]],
    rule: float | None = None,
    unit: str = "step",
    edge: Edge = "top",
) -> Chart:
    """Lay out the curves, of which there is at least one; `rule` is a value to draw a reference line at.

    The vertical axis has the limits of the figures in print (`lines.limits`); what is beyond is cut off there, and
    runs that diverged are marked at the `edge`.
    """
    shown = [line for _, _, line in curves]
    found = limits(shown, rule, edge)
    steps = [step for _, _, line in curves for step in line.steps]
    left, right = min(steps), max(steps)
    if left == right:
        left, right = left - 1, right + 1
    height, y_ticks = _vertical(found)
    worst = TOP + 6 if edge == "top" else HEIGHT - BOTTOM - 6

    def x(step: float) -> float:
        return round(LEFT + (step - left) / (right - left) * (WIDTH - LEFT - RIGHT), 1)

    lines = [_line(label, look, line, x, height, worst) for label, look, line in curves]
    cursor = {
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "from": left,
        "to": right,
        "unit": unit,
        "steps": sorted(set(steps)),
        "lines": [
            {"steps": line.steps, **{name: _short(getattr(line, name)) for name in ("mean", "low", "high")}}
            for _, _, line in curves
        ],
    }
    x_ticks = [(x(step), f"{step:g}") for step in _ticks(left, right, integer=True)]
    return Chart(title, lines, x_ticks, y_ticks, None if rule is None else height(rule), unit, told(shown), cursor)


def _line(
    label: str, look: Look, line: Curve, x: Callable[[float], float], y: Callable[[float], float], worst: float
) -> Line:
    points = [(x(step), y(value)) for step, value in zip(line.steps, line.mean, strict=True) if math.isfinite(value)]
    bounds = zip(line.steps, line.low, line.high, strict=True)
    pieces = []
    for known, piece in groupby(bounds, key=lambda bound: math.isfinite(bound[1])):
        if known:
            corners = [(x(step), y(low), y(high)) for step, low, high in piece]
            pieces.append(_path([(at, high) for at, _, high in corners] + [(at, low) for at, low, _ in corners[::-1]]))
    return Line(
        label=label,
        color=look.hue,
        dash=" ".join(f"{1.8 * length:g}" for length in look.dash),
        mark=look.mark,
        path=_path(points),
        band="".join(f"{piece}Z" for piece in pieces),
        marks=points[:: max(1, math.ceil(len(points) / MARKS))],
        ends=[(x(step), worst) for step, _ in line.ends],
        last=reading(line.mean[-1], line.low[-1], line.high[-1]),
    )


def reading(mean: float, low: float, high: float) -> str:
    """`0.93 [0.91, 0.95]`; without brackets where there is no interval. The page's script writes the same."""
    return f"{mean:.4g} [{low:.4g}, {high:.4g}]" if math.isfinite(low) else f"{mean:.4g}"


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _short(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def _vertical(found: Limits) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """The height of a value, cut off at the edges, and the ticks."""
    bottom, top = (math.log(found.low), math.log(found.high)) if found.logarithmic else (found.low, found.high)

    def height(value: float) -> float:
        if found.logarithmic:
            value = math.log(value) if value > 0 else -math.inf
        share = min(1.0, max(0.0, (value - bottom) / (top - bottom)))
        return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)

    ticks = _log_ticks(found.low, found.high) if found.logarithmic else _ticks(bottom, top)
    return height, [(height(value), f"{value:.5g}") for value in ticks]


def _ticks(low: float, high: float, *, integer: bool = False) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    return [
        value
        for value in map(float, MaxNLocator(5, steps=[1, 2, 5, 10], integer=integer).tick_values(low, high))
        if low <= value <= high
    ]


def _log_ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import LogLocator

    locator = LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=6)
    return [value for value in map(float, locator.tick_values(low, high)) if low <= value <= high]
