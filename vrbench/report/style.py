"""The one look of all figures and of the page's charts: colours, dashes and markers by arm, and matplotlib's settings.

The colours are those of Okabe and Ito (jfly.uni-koeln.de/color, 2008), told apart with any common colour blindness;
yellow is left out, too faint on white. Dash and marker differ as well, so that print in grey can be read.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vrbench.report.names import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.5), (1.5, 1.5), (6, 1.5, 1.5, 1.5), (9, 2))
"""On and off lengths in line widths; empty: unbroken."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h", "d")

RC: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
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
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,  # fonts are embedded as TrueType: text can be searched, and publishers take it
}
_HASHED = re.compile(r'(?<=["#])(?:[mph]|C[0-9a-f]+_[0-9a-f]+_)[0-9a-f]{10}(?=[")])')
"""Ids of matplotlib's clip paths, markers, hatches and collections, where they are set and where they are used."""
UNDATED: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""By format, the metadata without which a file would differ from day to day."""

LETTERS = {8: 13.5, 9: 12.0, 10: 11.0}
"""About how many letters of so many points an inch of a line has."""
LEAST_PANEL = 2.0
"""Inches of width below which a panel goes into the next row."""
LEAST_ROW = 1.0
"""Inches of height that a row of panels needs."""
LINE = 0.17
"""Inches of height of a legend's line."""


class NoData(Exception):
    """A figure has nothing to show; the message says why in a few words."""


@dataclass(frozen=True)
class Size:
    """The printed size of a figure, in inches; without a height, each figure has the height that it needs."""

    width: float
    height: float | None = None

    @classmethod
    def parse(cls, text: str) -> Size:
        """`single`, `double` (the columns of a page in two columns), `text` (a page in one), or `WxH` in inches.

        Raises ValueError for anything else, and for sizes at which no figure can be read or kept.
        """
        if text in WIDTHS:
            return cls(WIDTHS[text])
        try:
            width, height = map(float, text.split("x"))
        except ValueError:
            width = height = math.nan
        if not (2 <= width <= 40 and 1.5 <= height <= 40):
            known = ", ".join(f"{name} ({inches:g} in)" for name, inches in WIDTHS.items())
            raise ValueError(f"size={text}: must be {known} or WxH in inches, from 2x1.5 to 40x40 (6.5x3)")
        return cls(width, height)


WIDTHS = {"single": 3.25, "double": 6.75, "text": 5.5}
"""Columns of a letter page: ICML's one and both, NeurIPS' one."""


@dataclass(frozen=True)
class Look:
    """How one arm is drawn, everywhere: numbers of its colour, dash and marker."""

    hue: int
    stroke: int
    mark: int

    @property
    def color(self) -> str:
        """As six hex digits."""
        return COLORS[self.hue]

    @property
    def dash(self) -> tuple[float, ...]:
        """On and off lengths of its line."""
        return DASHES[self.stroke]

    @property
    def marker(self) -> str:
        """matplotlib's letter."""
        return MARKERS[self.mark]

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for a line."""
        return {"color": self.color, "linestyle": (0, self.dash) if self.dash else "solid"}

    @property
    def point(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot` for points."""
        return {"color": self.color, "marker": self.marker, "linestyle": "none"}


def look_of(optimizer: str, arm: int = 0) -> Look:
    """The look of an optimizer's arm with this number, from 0: its colour is the optimizer's, as are dash and marker of
    the first arm; the next ones have other dashes and markers, the first 65 all different. Of the listed optimizers the
    first seven have a colour each, the next seven the same with the next dash, and so on."""
    _, number = number_of(optimizer)
    stroke = number // len(COLORS) + arm
    return Look(number % len(COLORS), stroke % len(DASHES), (number + arm) % len(MARKERS))


def looks(arms: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """A look for each label of (optimizer, label), whatever else is shown: its optimizer's, in the order of its labels.

    Two optimizers whose names happen to come to one look are the exception: the later takes its next one.
    """
    found: dict[str, Look] = {}
    arms_of: Counter[str] = Counter()
    for optimizer, label in sorted(set(arms), key=lambda arm: (not number_of(arm[0])[0], arm)):
        free = (look_of(optimizer, arm) for arm in range(arms_of[optimizer], len(DASHES) * len(MARKERS)))
        look = next((one for one in free if one not in found.values()), look_of(optimizer, arms_of[optimizer]))
        found[label] = look
        arms_of[optimizer] += 1
    return found


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib with the settings of this style, for as long as the block runs."""
    from matplotlib import rc_context

    with rc_context(RC):
        yield


def room(across: int, width: float = 7.0, size: Size | None = None, least: float = LEAST_PANEL) -> int:
    """How many panels of `least` inches of width go into a row, `across` at most."""
    return max(1, min(across, int((size.width if size else width) // least)))


def panels(
    count: int, across: int = 1, height: float = 2.6, width: float = 7.0, size: Size | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure with `count` axes, row by row, `across` of them in a row.

    `height` is that of one row and `width` that of all, in inches, where `size` does not say otherwise. Axes that are
    left over are not there.
    """
    from matplotlib.figure import Figure

    width = size.width if size else width
    across = min(count, across)
    rows = math.ceil(count / across)
    whole = size.height if size and size.height else height * rows
    figure = Figure(figsize=(width, whole), layout="constrained")
    axes = list(figure.subplots(rows, across, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def logarithmic(axes: Axes, which: Literal["x", "y"], values: Iterable[float]) -> None:
    """Make the x or y axis logarithmic for these values (positive; nan does no harm), with plain labels: 0.05."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=7))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def wrapped(text: str, inches: float, points: int = 8) -> str:
    """The text in lines of so many inches; a word that is longer is cut."""
    return "\n".join(textwrap.wrap(text, max(8, int(inches * LETTERS[points])))) or text


def shortened(text: str, inches: float, points: int = 8) -> str:
    """The text in one line of so many inches; what is longer ends in …"""
    if inches_of(text, points) <= inches:
        return text
    return f"{text[: max(8, int(len(text) * inches / inches_of(text, points)) - 2)]}…"


def headline(figure: Figure, text: str) -> None:
    """A title above all axes, in as many lines as it takes."""
    figure.suptitle(wrapped(text, figure.get_figwidth() - 0.3, 10))


def legend_below(figure: Figure, axes: Sequence[Axes], size: Size | None = None, note: str = "") -> None:
    """One legend of all axes' labels below them, with a note above it that says what is drawn.

    In as many columns as the labels leave room for; the figure grows by it, where its height is not given. Raises
    ValueError for a given height that leaves no room for the panels.
    """
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    inches = figure.get_figwidth() - 0.3
    note = wrapped(note, inches) if note else ""
    texts = [wrapped(label, inches - 0.5) for label in entries]
    if not texts and not note:
        return
    longest = max((inches_of(line) for text in texts for line in text.splitlines()), default=inches)
    columns = max(1, min(len(texts), int(inches // (longest + 0.5))))
    legend = figure.legend(
        list(entries.values()), texts, loc="outside lower center", ncols=columns, frameon=False,
        title=note or None, columnspacing=1.2,
    )  # fmt: skip
    legend.get_title().set_multialignment("center")
    deepest = max((text.count("\n") + 1 for text in texts), default=0)
    below = LINE * (math.ceil(len(texts) / columns) * deepest + (note.count("\n") + 1 if note else 0))
    if size is None or size.height is None:
        figure.set_figheight(figure.get_figheight() + below)
        return
    rows = max(axis.get_subplotspec().get_gridspec().nrows for axis in figure.axes)  # type: ignore[union-attr]
    if size.height < (needed := below + LEAST_ROW * rows):
        given = f"{size.width:g}x{size.height:g}"
        raise ValueError(
            f"size={given}: too low for what is drawn; it takes {needed:.1f} inches of height, or fewer arms"
        )


def inches_of(text: str, points: float = 8) -> float:
    """How wide a line of text is."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=points).get_extents().width) / 72


def save(figure: Figure, path: Any, kind: str) -> None:
    """Write a figure as `png`, `svg` or `pdf`; the same figure gives the same bytes. Raises OSError."""
    if kind != "svg":
        figure.savefig(path, format=kind, dpi=200, metadata=UNDATED[kind])
        return
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=200, metadata=UNDATED[kind])
    content = numbered(drawn.getvalue().decode()).encode()
    if hasattr(path, "write"):
        path.write(content)
    else:
        Path(path).write_bytes(content)


def numbered(svg: str) -> str:
    """An SVG of matplotlib with numbers for the ids that it hashes: the hash is of numpy's texts, which change.

    They end in a hash of all the rest: a page may hold several pictures.
    """
    rest = hashlib.sha256(_HASHED.sub("", svg).encode()).hexdigest()[:6]
    ids = {name: f"{name[0]}{number}-{rest}" for number, name in enumerate(dict.fromkeys(_HASHED.findall(svg)))}
    return _HASHED.sub(lambda found: ids[found[0]], svg)
