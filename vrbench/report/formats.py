"""Tables in five formats: drawn on a terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vrbench.report import screen


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
    bold: frozenset[tuple[int, str]] = frozenset()
    """Number of the row and heading of the cells that a verdict calls better."""
    appendix: Table | None = None
    """A table that comes with it (`vrbench.report.tuned`)."""


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


def latex(table: Table) -> str:
    r"""A `tabular`, its notes as paragraphs below it, its appendix below those; needs `\usepackage{booktabs}`."""
    return "\n".join([r"% needs \usepackage{booktabs}", *_latex(table), ""])


def _latex(table: Table) -> list[str]:
    columns = "".join("r" if heading in table.numeric else "l" for heading in table.headings)
    rows = [" & ".join(escape_latex(cell) for cell in line) + r" \\" for line in table.cells]
    heading = " & ".join(escape_latex(heading) for heading in table.headings) + r" \\"
    notes = [rf"\par\smallskip\noindent {escape_latex(note)}" for note in table.notes]
    title = [rf"\par\bigskip\noindent {escape_latex(table.title)}\par\smallskip\noindent"] if table.title else []
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heading, r"\midrule"]
    below = _latex(table.appendix) if table.appendix else []
    return [*title, *lines, *rows, r"\bottomrule", r"\end{tabular}", *notes, *below]


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "↑": r"\(\uparrow\)",
    "↓": r"\(\downarrow\)",
    "−": r"\(-\)",
    "±": r"\(\pm\)",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"\(\times\)",
    "†": r"\(\dagger\)",
    "→": r"\(\rightarrow\)",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """The text for any LaTeX engine; a character beyond ASCII that has no entry here is told by its code point."""
    kept = "".join(_LATEX.get(char, char if char.isascii() else f"U+{ord(char):04X}") for char in text)
    return re.sub(r"\s+", " ", kept)


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
