"""Heat maps: the best validation over the learning rate and another setting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vrbench.report.arms import Arm
from vrbench.report.search_figures import LR, Trial, tried
from vrbench.report.style import NoData, headline, logarithmic, panels, room
from vrbench.report.view import DEFAULT, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _heat_map(arms: Sequence[Arm], key: str, view: View) -> Figure:
    """The best validation over the rate and another setting: cells where they were tried as a grid, else points."""
    found = {
        optimizer: points
        for optimizer, points in tried(arms, [LR, key]).items()
        if view.shows_named(optimizer, arms)
        and len({p.params[LR] for p in points}) > 1
        and len({p.params[key] for p in points}) > 1
    }
    if not found:
        raise NoData(f"{LR} and {key} were not varied together")
    finite = [point.value for points in found.values() for point in points if math.isfinite(point.value)]
    if not finite:
        raise NoData("every run diverged")
    from matplotlib.colors import Normalize

    norm = Normalize(min(finite), max(finite))
    figure, axes = panels(
        len(found),
        room(2, size=view.size, least=3.0),
        height=3.0,
        width=4.6 if len(found) == 1 else 6.75,
        size=view.size,
    )
    for axis, (optimizer, points) in zip(axes, found.items(), strict=True):
        rates, others = (sorted({point.params[name] for point in points}) for name in (LR, key))
        whole = {(point.params[LR], point.params[key]) for point in points}
        drawn = _cells if 2 * len(whole) >= len(rates) * len(others) else _points
        image = drawn(axis, points, rates, others, key, norm)
        axis.set_xlabel(LR)
        axis.set_ylabel(key)
        axis.set_title(view.named(optimizer, arms))
    headline(figure, f"{arms[0].task}, {arms[0].model} (×: diverged)")
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


def beta3_heat_map(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """The best validation over VRAdam's rate and its velocity penalty β3."""
    return _heat_map(arms, "optimizer.beta3", view)


def alpha1_heat_map(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """The best validation over VRAdam's rate and α1, which bounds the rate from below."""
    return _heat_map(arms, "optimizer.alpha1", view)
