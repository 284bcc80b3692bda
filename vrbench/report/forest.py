"""The forest plot: every comparison of a study on one axis, as the gain over the baseline.

Where all comparisons are of one task's metric the axis has its unit, else it is in percent of the baseline's mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vrbench.report.compare import Comparison
from vrbench.report.rivals import Rival
from vrbench.report.statistics import Interval
from vrbench.report.style import Look, NoData, legend_below, look_of, panels, shortened, wrapped
from vrbench.report.view import DEFAULT, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, PLOT = 26, 320
"""Height of a row and width of the plot, in the units of the page's view box."""
TOP, BOTTOM = 8, 24
"""Margins around the plot; those beside it are as wide as their texts."""
LETTER = 7.0
"""Width of a letter of a label."""
NARROW = 5.0
"""Inches of width below which a row's texts stand above its interval, not beside it."""
NO_PLOT = "no two optimizers have two paired runs on one task"


@dataclass(frozen=True)
class Row:
    """One comparison: its gain over the baseline and 95 % interval, in the axis' unit; more is better for the rival.

    The bounds are nan where there is no interval, the gain where no pair has finished too.
    """

    names: str
    """`VRAdam − AdamW`."""
    place: str
    gain: float
    low: float
    high: float
    smallest: float
    """The smallest effect that matters, in the same unit."""
    word: str
    count: str
    """Of how many seeds and tunings: `n = 24, R = 3`."""
    difference: str
    """Rival - baseline in the metric's own unit and with its own sign."""
    look: Look

    @property
    def label(self) -> str:
        """Both sides and the place."""
        return f"{self.names}: {self.place}"

    @property
    def drawn(self) -> bool:
        """Whether there is an interval to draw."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Rows:
    """What a forest plot shows, and what its axis means."""

    lines: list[Row]
    axis: str
    """`gain over AdamW in test accuracy`."""


def rows(found: Sequence[Rival], view: View = DEFAULT) -> Rows:
    """The judged comparisons in their order; empty where none of them has an interval."""
    judged = [
        (rival, place, one)
        for rival in found
        for place, one in zip(rival.names, rival.found, strict=True)
        if one.judged and view.shows(one.a)
    ]
    metrics = {(one.a.task, one.a.metric) for _, _, one in judged}
    own_unit = len(metrics) == 1
    lines = [_row(place, one, view, own_unit) for _, place, one in judged]
    if not any(line.drawn for line in lines):
        return Rows([], "")
    first = judged[0][2]
    splits = " and ".join(
        "validation" if split == "val" else split for split in sorted({r.split for r, _, _ in judged})
    )
    metric = f"{splits} {first.a.metric.replace('_', ' ')}"
    less = ", where less is better" if first.a.direction == "min" else ""
    unit = f"in {metric}{less}" if own_unit else f"in % of its mean ({splits})"
    return Rows(lines, f"gain over {view.name(first.b)} {unit}")


def _row(place: str, one: Comparison, view: View, own_unit: bool) -> Row:
    pairs = one.pairs
    sign = 1.0 if one.a.direction == "max" else -1.0
    scale = sign * (1.0 if own_unit else 100.0 / (abs(pairs.mean_b) or math.nan))
    low, high = sorted(scale * bound for bound in pairs.interval)
    told = f"Δ {one.a.metric.replace('_', ' ')} {_signed(pairs.difference, pairs.interval)}"
    if not math.isfinite(pairs.difference):
        told = "no pair has finished"
    elif not math.isfinite(low):
        told = f"{told}, no interval"
    else:
        told = f"{told} [{', '.join(_signed(bound, pairs.interval) for bound in pairs.interval)}]"
    replicates = pairs.units if pairs.unit == "replicate" else 1
    tuned = f", R = {replicates}" if one.a.tuned or one.b.tuned else ""
    lost = pairs.diverged_a + pairs.diverged_b
    count = f"n = {pairs.seeds}{tuned}" + (f", {lost} diverged" if lost else "")
    names = f"{view.name(one.a)} − {view.name(one.b)}"
    if one.a.optimizer == one.b.optimizer:
        names = f"{view.label(one.a)} − {view.label(one.b)}"
    smallest = abs(scale) * pairs.smallest
    return Row(names, place, scale * pairs.difference, low, high, smallest, one.verdict.word, count,
               told, look_of(one.a.optimizer))  # fmt: skip


def _signed(value: float, interval: Interval) -> str:
    """Three digits with a sign; 0 for what rounding left of it."""
    width = abs(interval.high - interval.low)
    return "0" if abs(value) < 1e-9 * width else f"{value:+.3g}".replace("-", "−")


def figure(found: Sequence[Rival], view: View = DEFAULT) -> Figure:
    """The forest plot for print: a point and interval each, the region of no practical difference in grey.

    Raises NoData where no comparison has an interval.
    """
    from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter

    told = rows(found, view)
    lines = told.lines
    if not lines:
        raise NoData(NO_PLOT)
    narrow = view.size is not None and view.size.width < NARROW
    pitch = 0.6 if narrow else 0.34 if len(lines) <= 20 else 0.27
    made, (axis,) = panels(1, height=0.55 + pitch * len(lines), width=6.75, size=view.size)
    for place, row in enumerate(lines):
        at = place + 0.3 if narrow else place
        if math.isfinite(row.smallest):
            axis.barh(place, 2 * row.smallest, left=-row.smallest, height=1.0, color="0.9", zorder=0)
        if row.drawn:
            axis.plot([row.low, row.high], [at, at], color=row.look.color)
        if math.isfinite(row.gain):
            axis.plot([row.gain], [at], marker=row.look.marker, color=row.look.color)
        _say(axis, row, place, made.get_figwidth() if narrow else None)
    linear = _linear_to(lines)
    if linear is None:
        axis.xaxis.set_major_locator(MaxNLocator(5))
    else:
        axis.set_xscale("symlog", linthresh=linear)
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        reach = max(_reach(row) for row in lines if row.drawn)
        axis.set_xticks(_ticks(1.1 * reach, linear, 2))
        axis.xaxis.set_minor_locator(NullLocator())
    axis.axvline(0, color="black", linewidth=0.8)
    labels = [""] * len(lines) if narrow else [f"{row.names}\n{row.place}" for row in lines]
    axis.set_yticks(range(len(lines)), labels)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_xlabel(wrapped(told.axis, made.get_figwidth() - 0.4, 9))
    legend_below(
        made, [], view.size, "Bar: 95 % interval; grey: smaller than matters; n: seeds, R: tunings of each side"
    )
    return made


def _say(axis: Axes, row: Row, place: int, inches: float | None) -> None:
    """What is said of a row: beside it, or above its interval where the figure has so many inches and no more."""
    if inches is None:
        text = f"{row.word} ({row.count})\n{row.difference}"
        axis.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, linespacing=1.0)
        return
    lines = row.label, f"{row.word} ({row.count})", row.difference
    text = "\n".join(shortened(line, inches - 0.15) for line in lines)
    axis.annotate(text, (0.0, place - 0.47), xycoords=("axes fraction", "data"), va="top", fontsize=8, linespacing=1.0)


@dataclass(frozen=True)
class Drawn:
    """A row as the page draws it, in the units of the view box; without an interval, `low` and `high` are None."""

    row: Row
    y: float
    gain: float | None
    low: float | None
    high: float | None
    band: tuple[float, float]
    """Left edge and width of the region of no practical difference; width 0 where there is none."""
    text: str
    """What stands beside it."""


@dataclass(frozen=True)
class Plot:
    """The forest plot of the page."""

    rows: list[Drawn]
    zero: float
    ticks: list[tuple[float, str]]
    left: int
    right: int
    top: int
    bottom: int
    width: int
    height: int
    title: str


def plot(found: Sequence[Rival], view: View = DEFAULT) -> Plot | None:
    """The forest plot of the page; None without a comparison to draw."""
    told = rows(found, view)
    lines = told.lines
    if not lines:
        return None
    linear = _linear_to(lines)
    reach = 1.1 * max(_reach(row) for row in lines if row.drawn) or 1.0
    margin = math.ceil(LETTER * max(len(row.label) for row in lines)) + 16

    def x(value: float) -> float:
        value = min(reach, max(-reach, value))
        share = value / reach if linear is None else math.asinh(value / linear) / math.asinh(reach / linear)
        return round(margin + (share + 1) / 2 * PLOT, 1)

    drawn = []
    for place, row in enumerate(lines):
        left = x(-row.smallest) if math.isfinite(row.smallest) else x(0)
        band = (left, round(x(row.smallest) - left, 1)) if math.isfinite(row.smallest) else (left, 0.0)
        gain, low, high = (x(value) if math.isfinite(value) else None for value in (row.gain, row.low, row.high))
        text = f"{row.word} ({row.count}): {row.difference}"
        drawn.append(Drawn(row, TOP + ROW * (place + 0.5), gain, low, high, band, text))
    bottom = TOP + ROW * len(lines)
    title = f"{told.axis[:1].upper()}{told.axis[1:]}, with 95 % intervals; grey: smaller than matters"
    places = [(x(value), f"{value:g}") for value in _ticks(reach, linear)]
    right = margin + PLOT
    beside = math.ceil(LETTER * max(len(row.text) for row in drawn)) + 8
    return Plot(drawn, x(0), places, margin, right, TOP, bottom, right + beside, bottom + BOTTOM, title)


def _reach(row: Row) -> float:
    return max(-row.low, row.high)


def _linear_to(lines: Sequence[Row]) -> float | None:
    """Where the widest interval reaches twenty times as far as the narrowest, the axis is logarithmic beyond this."""
    reaches = [reach for row in lines if row.drawn and (reach := _reach(row)) > 0]
    if not reaches or max(reaches) <= 20 * min(reaches):
        return None
    return float(10 ** math.floor(math.log10(min(reaches))))


def _ticks(reach: float, linear: float | None, most: int = 3) -> list[float]:
    """Where to write numbers: on a logarithmic axis at 0 and at most so many places on each side."""
    if linear is None:
        from matplotlib.ticker import MaxNLocator

        return [value for value in map(float, MaxNLocator(6).tick_values(-reach, reach)) if -reach <= value <= reach]
    powers = [linear * 10.0**power for power in range(math.floor(math.log10(reach / linear)) + 1)]
    powers = powers[:: -math.ceil(len(powers) / most)][::-1]
    return [*(-value for value in reversed(powers)), 0.0, *powers]
