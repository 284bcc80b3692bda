"""Tables in five formats: drawn on a terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vrbench import terminal
from vrbench.report import screen
from vrbench.report.latex import latex


@dataclass(frozen=True)
class Table:
    """One table: what is shown (text) and what it is made from (full precision)."""

    headings: list[str]
    cells: list[list[str]]
    records: list[dict[str, Any]]
    """One flat record a row."""
    notes: list[str]
    """What a reader has to know: intervals, tests, families, what is left out."""
    numeric: frozenset[str] = frozenset()
    """Headings of the columns that are set to the right."""
    title: str = ""
    caption: str = ""
    """What a printed page says of it."""
    print_columns: tuple[str, ...] = ()
    """Headings of the columns that a printed page has room for; none: all."""
    bold: frozenset[tuple[int, str]] = frozenset()
    """Number of the row and heading of the cells that a verdict calls better."""
    appendix: Table | None = None
    """A table that comes with it (`vrbench.report.tuned`)."""


def only(table: Table, columns: Sequence[str]) -> Table:
    """The table of some columns, in their order, without its appendix; of the records, the keys of these names.

    A column is named by its heading or the beginning of it that no other has; signs may be ASCII (`- adamw`). Raises
    ValueError for a name that there is not.
    """
    keys = list(table.records[0]) if table.records else []
    places, records = [], []
    for name in columns:
        found = _named(name, table.headings)
        places += found
        records += [key for key in keys if key == name or any(key == table.headings[place] for place in found)]
        if not found and name not in keys:
            raise ValueError(f"columns={name}: no such column; there are {', '.join(map(repr, table.headings))}; "
                             f"of CSV and JSON {', '.join(keys)}")  # fmt: skip
    headings = [table.headings[place] for place in places]
    return replace(
        table,
        headings=headings,
        cells=[[line[place] for place in places] for line in table.cells],
        records=[{key: record[key] for key in records} for record in table.records],
        print_columns=(),
        appendix=None,
    )


def _named(name: str, headings: Sequence[str]) -> list[int]:
    """The place of the heading that a name means; none where there is not exactly one."""
    spelled = [_spelled(heading) for heading in headings]
    exact = [place for place, heading in enumerate(spelled) if heading == _spelled(name)]
    begun = [place for place, heading in enumerate(spelled) if heading.startswith(_spelled(name))]
    return exact[:1] or (begun if len(begun) == 1 else [])


def _spelled(heading: str) -> str:
    return "".join(terminal.WORDS.get(char, char) for char in heading).replace(" ", "")


def markdown(table: Table) -> str:
    """A GitHub-flavoured Markdown table, its notes below it, its appendix below those."""
    rules = ["---:" if heading in table.numeric else "---" for heading in table.headings]
    lines = [table.headings, *table.cells]
    shown = [f"| {' | '.join(escape_markdown(cell) for cell in line)} |" for line in lines]
    shown.insert(1, f"|{'|'.join(rules)}|")
    heading = [f"**{escape_markdown(table.title)}**", ""] if table.title else []
    below = [markdown(table.appendix)] if table.appendix else []
    return "\n".join([*heading, *shown, "", *(f"{escape_markdown(note)}\n" for note in table.notes), *below])


_MARKDOWN = re.compile(r"[\\`*|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=\])\(")
_HTML = re.compile(r"<(?=[A-Za-z/!?])|&(?=#?\w+;)")
"""What begins a tag or an entity: any other `<` or `&` stays as it is, `p < 0.05` too."""


def escape_markdown(text: str) -> str:
    """The text so that Markdown shows it as it is; a line break becomes a space."""
    text = _MARKDOWN.sub(lambda found: f"\\{found[0]}", re.sub(r"\s*\n\s*", " ", text))
    return _HTML.sub(lambda found: html.escape(found[0]), text)


def comma_separated(table: Table) -> str:
    """The records as CSV in full precision."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table.records[0]) if table.records else table.headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return out.getvalue()


def as_json(table: Table, **more: Any) -> str:
    """`{"rows": […], "notes": […], "tuned": […], …}`; numbers that JSON cannot say are null."""
    tuned = table.appendix.records if table.appendix else []
    content = {"rows": table.records, "notes": table.notes, "tuned": tuned, **more}
    return json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "text": screen.text,
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "json": as_json,
}
