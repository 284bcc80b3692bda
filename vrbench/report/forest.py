"""The forest plot: every comparison of a study on one axis, as the gain in percent of the baseline's mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vrbench.report.rivals import Rival
from vrbench.report.style import COLORS, NoData, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, PLOT = 26, 320
"""Height of a row and width of the plot, in the units of the page's view box."""
RIGHT, TOP, BOTTOM = 110, 8, 24
"""Margins around the plot; the right one is for verdicts."""
LETTER = 7.0
"""Width of a letter of a label."""


@dataclass(frozen=True)
class Row:
    """One comparison: its gain over the baseline's mean and 95 % interval, in percent; more is better for the rival."""

    label: str
    gain: float
    low: float
    high: float
    smallest: float
    """The smallest effect that matters, in the same percent."""
    word: str


def rows(found: Sequence[Rival]) -> list[Row]:
    """The judged comparisons with a finite interval and a baseline's mean that is not 0, in their order."""
    made = []
    for rival in found:
        for place, one in zip(rival.names, rival.found, strict=True):
            scale = (100.0 if one.a.direction == "max" else -100.0) / (abs(one.pairs.mean_b) or math.nan)
            low, high = sorted(scale * bound for bound in one.pairs.interval)
            if one.judged and all(map(math.isfinite, (low, high))):
                smallest = abs(scale) * one.pairs.smallest
                label = f"{rival.name} − {rival.baseline}: {place}"
                made.append(Row(label, scale * one.pairs.difference, low, high, smallest, one.verdict.word))
    return made


def figure(found: Sequence[Rival]) -> Figure:
    """The forest plot for print: a point and interval each, the region of no practical difference in grey."""
    from matplotlib.ticker import StrMethodFormatter

    lines = rows(found)
    if not lines:
        raise NoData("no two optimizers have two paired runs on one task")
    made, (axis,) = panels(1, 1, height=0.9 + 0.28 * len(lines))
    for place, row in enumerate(lines):
        if math.isfinite(row.smallest):
            axis.barh(place, 2 * row.smallest, left=-row.smallest, height=0.9, color="0.9", zorder=0)
        axis.plot([row.low, row.high], [place, place], color=COLORS[0])
        axis.plot([row.gain], [place], marker="s", color=COLORS[0])
        axis.annotate(row.word, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    linear = _linear_to(lines)
    if linear is not None:
        axis.set_xscale("symlog", linthresh=linear)
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(lines)), [row.label for row in lines])
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.set_xlabel(f"gain over {found[0].baseline} in % of its mean, 95 % interval\n(grey: below the smallest effect)")
    return made


@dataclass(frozen=True)
class Drawn:
    """A row as the page draws it, in the units of the view box."""

    row: Row
    y: float
    gain: float
    low: float
    high: float
    band: tuple[float, float]
    """Left edge and width of the region of no practical difference; width 0 where there is none."""
    text: str


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


def plot(found: Sequence[Rival]) -> Plot | None:
    """The forest plot of the page; None without a comparison to draw."""
    lines = rows(found)
    if not lines:
        return None
    linear = _linear_to(lines)
    reach = 1.1 * max(_reach(row) for row in lines) or 1.0
    margin = math.ceil(LETTER * max(len(row.label) for row in lines)) + 16

    def x(value: float) -> float:
        value = min(reach, max(-reach, value))
        share = value / reach if linear is None else math.asinh(value / linear) / math.asinh(reach / linear)
        return round(margin + (share + 1) / 2 * PLOT, 1)

    drawn = []
    for place, row in enumerate(lines):
        left = x(-row.smallest) if math.isfinite(row.smallest) else x(0)
        band = (left, round(x(row.smallest) - left, 1)) if math.isfinite(row.smallest) else (left, 0.0)
        text = f"{row.gain:+.3g} % [{row.low:+.3g}, {row.high:+.3g}]"
        drawn.append(Drawn(row, TOP + ROW * (place + 0.5), x(row.gain), x(row.low), x(row.high), band, text))
    bottom = TOP + ROW * len(lines)
    title = f"Gain over {found[0].baseline}, in % of its mean, with 95 % intervals; grey: smaller than matters"
    places = [(x(value), f"{value:g}") for value in _ticks(reach, linear)]
    right = margin + PLOT
    return Plot(drawn, x(0), places, margin, right, TOP, bottom, right + RIGHT, bottom + BOTTOM, title)


def _reach(row: Row) -> float:
    return max(-row.low, row.high)


def _linear_to(lines: Sequence[Row]) -> float | None:
    """Where the widest interval reaches twenty times as far as the narrowest, the axis is logarithmic beyond this."""
    reaches = [reach for row in lines if (reach := _reach(row)) > 0]
    if not reaches or max(reaches) <= 20 * min(reaches):
        return None
    return float(10 ** math.floor(math.log10(min(reaches))))


def _ticks(reach: float, linear: float | None) -> list[float]:
    if linear is None:
        from matplotlib.ticker import MaxNLocator

        return [value for value in map(float, MaxNLocator(6).tick_values(-reach, reach)) if -reach <= value <= reach]
    powers = [linear * 10.0**power for power in range(math.floor(math.log10(reach / linear)) + 1)]
    powers = powers[1:] if len(powers) > 3 else powers  # the first ones would lie too near to 0
    return [*(-value for value in reversed(powers)), 0.0, *powers]
