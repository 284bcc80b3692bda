"""Of every comparison the difference at each seed: what the mean and its interval in the forest plot are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vrbench.report.compare import Comparison, sides
from vrbench.report.rivals import Rival
from vrbench.report.style import NoData, legend_below, look_of, panels, room, wrapped
from vrbench.report.view import DEFAULT, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 4
"""Rows of panels of one figure."""


def figure(found: Sequence[Rival], view: View = DEFAULT) -> Figure:
    """A panel a comparison: each seed's difference in the metric's unit, by replicate where there are several; their
    mean with its interval; the region of no practical difference in grey; seeds of which a side diverged at the edge.

    Raises NoData without a comparison.
    """
    shown = [
        (one, place, rival)
        for rival in found
        for one, place in zip(rival.found, rival.names, strict=True)
        if one.judged and one.keys and view.shows(one.a)
    ]
    if not shown:
        raise NoData("no two optimizers have a paired run on one task")
    across = room(3, 6.75, view.size, least=1.5)
    left_out = len(shown) - ROWS * across
    shown = shown[: ROWS * across]
    made, axes = panels(len(shown), across, height=2.0, width=6.75, size=view.size)
    titles: list[str] = []
    for axis, (one, place, rival) in zip(axes, shown, strict=True):
        _draw(axis, one, rival.split)
        names = f"{view.name(one.a)} − {view.name(one.b)}"
        if one.a.optimizer == one.b.optimizer:
            names = f"{view.label(one.a)} − {view.label(one.b)}"
        inches = made.get_figwidth() / min(across, len(shown)) - 0.3
        titles.append("\n".join(wrapped(line, inches) for line in (names, place)))
        axis.set_title(titles[-1], fontsize=8)
        axis.set_ylabel(f"Δ {'test' if rival.split == 'test' else 'validation'} {one.a.metric.replace('_', ' ')}")
    note = "Points: paired seeds, a column a tuning where R is said; square and bar: mean, 95 % interval; grey: below"
    note = f"{note} the smallest effect; ×: a side diverged"
    more = f"; {left_out} more comparisons are left out" if left_out > 0 else ""
    legend_below(made, [], view.size, f"{note}; arrow: better{more}")
    return made


def _draw(axis: Axes, one: Comparison, split: str) -> None:
    pairs, look = one.pairs, look_of(one.a.optimizer)
    first, second = sides(one.a, one.b, split)
    keys = [key for key in one.keys if key in first]
    differences = [first[key] - second[key] for key in keys]
    replicates = list(dict.fromkeys(replicate for replicate, _ in keys))
    several = pairs.unit == "replicate"
    at = [float(replicates.index(key[0])) if several else float(place) for place, key in enumerate(keys)]
    finite = [(x, y) for x, y in zip(at, differences, strict=True) if math.isfinite(y)]
    if math.isfinite(pairs.smallest) and pairs.smallest > 0:
        axis.axhspan(-pairs.smallest, pairs.smallest, color="0.9", zorder=0, linewidth=0)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.plot([x for x, _ in finite], [y for _, y in finite], color=look.color, marker=look.marker, linestyle="none",
              alpha=0.5, markeredgewidth=0)  # fmt: skip
    middle = max(at) + 0.12 * max(1.0, max(at)) + 0.6
    low, high = pairs.interval
    if math.isfinite(low):
        axis.plot([middle, middle], [low, high], color="black")
    if math.isfinite(pairs.difference):
        axis.plot([middle], [pairs.difference], color="black", marker="s", linestyle="none")
    known = [y for _, y in finite] + [bound for bound in (low, high) if math.isfinite(bound)]
    _limit(axis, [*known, 0.0])
    lost = [(x, first[key], second[key]) for x, key in zip(at, keys, strict=True)]
    better_up = one.a.direction == "max"
    for x, a, b in lost:
        if math.isnan(a) or math.isnan(b):
            both = math.isnan(a) and math.isnan(b)
            height = 0.5 if both else 0.04 if math.isnan(a) == better_up else 0.96
            axis.plot(
                [x], [height], color=look.color, marker="x", linestyle="none", transform=axis.get_xaxis_transform()
            )
    axis.set_xticks([middle], ["mean"])
    axis.set_xlabel(_counted(one, len(keys), len(replicates)))
    axis.annotate("↑" if better_up else "↓", (0.02, 0.97 if better_up else 0.03), xycoords="axes fraction",
                  va="top" if better_up else "bottom")  # fmt: skip
    axis.set_xlim(-0.7, middle + 0.6)


def _limit(axis: Axes, values: Sequence[float]) -> None:
    """Limits around the values; where single ones are twenty times as far as most, both sides are logarithmic."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    reaches = sorted(abs(value) for value in values if value != 0)
    if reaches and reaches[-1] > 20 * reaches[len(reaches) // 2]:
        axis.set_yscale("symlog", linthresh=10 ** math.floor(math.log10(reaches[len(reaches) // 2])))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        return
    low, high = min(values), max(values)
    room = 0.12 * (high - low) or 1.0
    axis.set_ylim(low - room, high + room)
    axis.yaxis.set_major_locator(MaxNLocator(5))


def _counted(one: Comparison, seeds: int, replicates: int) -> str:
    if one.pairs.unit == "replicate":
        return f"R = {replicates}, n = {seeds}"
    return f"n = {seeds}"
