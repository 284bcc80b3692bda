r"""Tables for LaTeX: a `table` with caption and label, rules of booktabs, by choice siunitx columns that align at ±."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vrbench.report.formats import Table

BOLD = "Bold: better by the verdict; the best mean alone is not."
WIDEST = 30
"""Texts of more letters get a column in which they are broken into lines."""
_NUMBER = re.compile(r"(?P<number>-?\d+(\.\d+)?(e[-+]?\d+)?)( ± (?P<deviation>\d+(\.\d+)?))?(?P<post>[ *†].*)?")
"""A cell of a siunitx column: a number, its s.d., and what comes after (a mark, an interval)."""


def latex(table: Table, caption: str = "", label: str = "", siunitx: bool = False) -> str:
    """A `table` with the notes below its rules, then its appendix as another; what it needs is said first.

    Bold is what a verdict calls better (`Table.bold`), and nothing else. With `siunitx` the columns of numbers are S
    columns. Of a table that names its columns for print those alone are shown, less the empty ones.
    """
    package = r"% needs \usepackage{booktabs}" + (r" and \usepackage{siunitx}" if siunitx else "")
    label = label or "tab:results"
    lines = [package, *_table(table, caption, label, siunitx)]
    if table.appendix:
        lines += ["", *_table(table.appendix, "", f"{label}-tuned", siunitx)]
    return "\n".join([*lines, ""])


def _table(table: Table, caption: str, label: str, siunitx: bool) -> list[str]:
    print_of = table.print_columns or table.headings
    kept = [
        place
        for place, heading in enumerate(table.headings)
        if heading in print_of and any(line[place] for line in table.cells)
    ]
    columns = [[line[place] for line in table.cells] for place in kept]
    headings = [table.headings[place] for place in kept]
    numeric = [heading in table.numeric for heading in headings]
    aligned = [
        siunitx and own and any(map(_NUMBER.fullmatch, cells)) for own, cells in zip(numeric, columns, strict=True)
    ]
    specs, shown = [], []
    for heading, cells, right, align in zip(headings, columns, numeric, aligned, strict=True):
        bold = {row for row in range(len(cells)) if (row, heading) in table.bold}
        specs.append(_s_column(cells) if align else _column(cells, right))
        make = _s_cell if align else _cell if right else _broken if specs[-1].startswith("p") else _text
        shown.append([make(cell, row in bold) for row, cell in enumerate(cells)])
    top = [f"{{{escape_latex(heading)}}}" if align else escape_latex(heading)
           for heading, align in zip(headings, aligned, strict=True)]  # fmt: skip
    end = r" \tabularnewline" if any(spec.startswith("p") for spec in specs) else r" \\"
    rows = [" & ".join(line) + end for line in zip(*shown, strict=True)]
    told = [*([BOLD] if table.bold else []), *table.notes]
    notes = [rf"\par\smallskip\noindent {escape_latex(note)}" for note in told]
    below = (
        [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize", *notes, r"\end{minipage}"] if notes else []
    )
    return [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(caption or table.caption or table.title)}}}",
        rf"\label{{{_label(label)}}}",
        rf"\begin{{tabular}}{{{''.join(specs)}}}",
        r"\toprule",
        " & ".join(top) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *below,
        r"\end{table}",
    ]


def _label(text: str) -> str:
    """A label as LaTeX takes it: letters that mean something to it become hyphens."""
    return re.sub(r"[^A-Za-z0-9:._/+-]+", "-", text)


def _column(cells: Sequence[str], numeric: bool) -> str:
    if numeric:
        return "r"
    return r"p{0.2\linewidth}" if max(map(len, cells)) > WIDEST else "l"


def _text(cell: str, bold: bool) -> str:
    return rf"\textbf{{{escape_latex(cell)}}}" if bold else escape_latex(cell)


def _broken(cell: str, bold: bool) -> str:
    """A text that is broken into lines of unequal length."""
    return rf"\raggedright {_text(cell, bold)}"


def _cell(cell: str, bold: bool) -> str:
    """A cell of numbers, with a minus in place of each hyphen that is one."""
    return _text(re.sub(r"(?<![\w.])-(?=\d)", "−", cell), bold)


def _s_column(cells: Sequence[str]) -> str:
    """The S column that has room for these numbers, their s.d. and what comes after."""
    whole = decimals = exponent = deviation = 0
    minus, after = "", ""
    for cell in cells:
        if (found := _NUMBER.fullmatch(cell)) is None:
            continue
        mantissa, _, power = found["number"].partition("e")
        before, _, behind = mantissa.lstrip("-").partition(".")
        whole, decimals = max(whole, len(before)), max(decimals, len(behind))
        exponent = max(exponent, len(str(abs(int(power or 0)))) if power else 0)
        minus = "-" if mantissa.startswith("-") else minus
        if found["deviation"]:
            deviation = max(deviation, len(found["deviation"].replace(".", "").lstrip("0")) or 1)
        after = max(after, found["post"] or "", key=len)
    form = f"{minus}{whole}.{decimals}"
    form += f"({deviation})" if deviation else ""
    form += f"e-{exponent}" if exponent else ""
    room = rf", table-space-text-post={{{_post(after)}}}" if after else ""
    return rf"S[table-format={form}, separate-uncertainty, mode=text, detect-weight, table-align-text-post=false{room}]"


def _s_cell(cell: str, bold: bool) -> str:
    found = _NUMBER.fullmatch(cell)
    if found is None:
        return f"{{{escape_latex(cell)}}}"
    deviation = rf" \pm {found['deviation']}" if found["deviation"] else ""
    post = f"{{{_post(found['post'])}}}" if found["post"] else ""
    return (r"\bfseries " if bold else "") + found["number"] + deviation + post


def _post(text: str) -> str:
    return escape_latex(re.sub(r"(?<![\w.])-(?=\d)", "−", text)).replace(" ", "~")


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
    "–": "--",
    "…": r"\ldots{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{
        char: rf"\({sign}\)"
        for char, sign in {
            "↑": r"\uparrow", "↓": r"\downarrow", "→": r"\rightarrow", "−": "-", "±": r"\pm", "×": r"\times",
            "÷": r"\div", "·": r"\cdot", "†": r"\dagger", "≥": r"\geq", "≤": r"\leq", "≠": r"\neq", "²": "^2",
            "√": r"\surd", "Δ": r"\Delta", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "θ": r"\theta",
            "λ": r"\lambda", "π": r"\pi", "ρ": r"\rho", "τ": r"\tau",
        }.items()
    },
}  # fmt: skip


def escape_latex(text: str) -> str:
    """The text for any LaTeX engine; a character beyond ASCII that has no entry here is told by its code point."""
    kept = "".join(_LATEX.get(char, char if char.isascii() else f"U+{ord(char):04X}") for char in text)
    return re.sub(r"\s+", " ", kept)
