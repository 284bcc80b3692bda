"""The one look of all figures and of the page's charts: colours, dashes and markers by arm, and matplotlib's settings.

The colours are those of Okabe and Ito (jfly.uni-koeln.de/color, 2008), told apart with any common colour blindness;
yellow is left out, too faint on white. Dash and marker differ as well, so that print in grey can be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.5), (1.5, 1.5), (6, 1.5, 1.5, 1.5), (9, 2))
"""On and off lengths in line widths; empty: unbroken."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "figure.titlesize": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "svg.hashsalt": "vrbench",
}


class NoData(Exception):
    """A figure has nothing to show; the message says why in a few words."""


@dataclass(frozen=True)
class Look:
    """How one arm is drawn, everywhere."""

    number: int
    color: str
    dash: tuple[float, ...]
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for a line."""
        return {"color": self.color, "linestyle": (0, self.dash) if self.dash else "solid"}

    @property
    def point(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for points."""
        return {"color": self.color, "marker": self.marker, "linestyle": "none"}


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label, in sorted order: the same labels give the same looks, the first 280 differ."""
    return {label: look_of(number) for number, label in enumerate(sorted(set(labels)))}


def look_of(number: int) -> Look:
    """The look with this number, counted from 0."""
    return Look(number, COLORS[number % len(COLORS)], DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)])


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib with the settings of this style, for as long as the block runs."""
    from matplotlib import rc_context

    with rc_context(RC):
        yield


def panels(rows: int, columns: int, height: float = 2.6, width: float = 7.0) -> tuple[Figure, list[Axes]]:
    """An empty figure of `width` inches with `rows` × `columns` axes, row by row; `height` is that of one row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def logarithmic(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> None:
    """Make the x or y axis logarithmic for these values (positive; nan does no harm), with plain labels: 0.05."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axis: Axes) -> None:
    """The axis' legend below all axes, in as many columns as its labels leave room for."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        columns = max(1, min(len(labels), int(90 // (max(map(len, labels)) + 7))))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
