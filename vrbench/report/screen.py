"""Tables on a terminal, drawn by rich. Every text is shown as it is: no markup, no emoji codes, no highlighting."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vrbench import terminal

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from vrbench.report.formats import Table

ENDLESS = 10_000
"""More columns than any terminal has."""
SHORT, WORD = 16, 32
"""A text of up to so many letters is not broken; a word is, beyond so many."""


def is_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout is not None and sys.stdout.isatty()


def text(table: Table) -> str:
    """The table, its notes below it and its appendix below those, for the terminal that stdout is.

    Empty columns are left out. Where a terminal is too narrow for the columns and the lines between them it is drawn
    without lines, and where even that is too wide, each row is a block of lines.
    """
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as shown:
        for one in filter(None, (table, table.appendix)):
            _print(console, one)
    return shown.get()


def _print(console: Console, table: Table) -> None:
    kept = [place for place in range(len(table.headings)) if any(line[place] for line in table.cells)]
    grids = [_grid(table, kept), _grid(table, kept, box=None, padding=(0, 1, 0, 0))]
    endless = console.options.update(max_width=ENDLESS)
    fitting = next((grid for grid in grids if console.measure(grid, options=endless).minimum <= console.width), None)
    if fitting is not None:
        console.print(fitting)
    else:
        _print_blocks(console, table, kept)
    for note in table.notes:
        console.print(_text(note), soft_wrap=True)


def _grid(table: Table, kept: list[int], **how: Any) -> Any:
    from rich.table import Table as Grid

    grid = Grid(**how, title=_text(table.title) if table.title else None, title_justify="left")
    for place in kept:
        numeric = table.headings[place] in table.numeric
        own = [table.headings[place], *(line[place] for line in table.cells)]
        set_so: dict[str, Any] = {"justify": "right", "no_wrap": True} if numeric else {"overflow": "fold"}
        set_so["min_width"] = max(map(_width, own)) if numeric else _least(own)
        grid.add_column(_text(table.headings[place]), **set_so)
    for number in range(len(table.cells)):
        grid.add_row(*(_cell(table, number, place) for place in kept))
    return grid


def _least(texts: Sequence[str]) -> int:
    """How narrow a column of these texts may become: no narrower than its words, within reason."""
    longest, word = max(map(_width, texts)), max(_width(word) for text in texts for word in text.split() or [""])
    return min(WORD, max(word, min(longest, SHORT)))


def _width(words: str) -> int:
    return len(terminal.worded(words, sys.stdout))


def _print_blocks(console: Console, table: Table, kept: list[int]) -> None:
    from rich.table import Table as Grid

    if table.title:
        console.print(_text(table.title, "italic"))
    for number in range(len(table.cells)):
        block = Grid.grid(padding=(0, 2, 0, 0))
        for place in kept:
            if table.cells[number][place]:
                block.add_row(_text(table.headings[place], "bold"), _cell(table, number, place))
        console.print(block, "")


def _cell(table: Table, number: int, place: int) -> RenderableType:
    best = (number, table.headings[place]) in table.bold
    return _text(table.cells[number][place], "bold" if best else "")


def _text(words: str, style: str = "") -> Any:
    """A text that rich does not interpret, in signs that the terminal has."""
    from rich.text import Text

    return Text(terminal.worded(words, sys.stdout), style)
