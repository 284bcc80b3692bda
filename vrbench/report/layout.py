"""How a command's table is to look: the options of the command line, and the text that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from vrbench.report.formats import Table
    from vrbench.report.numerals import Numerals, Spread

FORMATS = ("text", "markdown", "latex", "csv", "json")


@dataclass(frozen=True)
class Layout:
    """What the options say."""

    form: str
    columns: tuple[str, ...] = ()
    decimals: int | None = None
    spread: Spread = "ci"
    caption: str = ""
    label: str = ""
    siunitx: bool = False

    def __post_init__(self) -> None:
        for name in ("caption", "label", "siunitx"):
            if getattr(self, name) and self.form != "latex":
                raise ValueError(f"{name}={getattr(self, name)}: is for --format latex")
        if self.form in ("csv", "json") and (self.decimals is not None or self.spread != "ci"):
            raise ValueError(f"format={self.form}: has all digits and columns; decimals and spread are for the others")

    @property
    def numerals(self) -> Numerals:
        """How numbers are written."""
        from vrbench.report.numerals import Numerals

        return Numerals(self.decimals, self.spread)

    def text(self, table: Table, **more: Any) -> str:
        """The table as it is asked for; `more` goes into JSON. Raises ValueError for a column that there is not."""
        from vrbench.report import formats

        table = formats.only(table, self.columns) if self.columns else table
        if self.form == "json":
            return formats.as_json(table, **more)
        if self.form == "latex":
            return formats.latex(table, self.caption, self.label, self.siunitx)
        return formats.FORMATS[self.form](table)


def _form(context: click.Context, option: click.Parameter, value: str | None) -> str:
    from vrbench.report import screen

    return value or ("text" if screen.is_terminal() else "markdown")


form_option = click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    callback=_form,
    help="[default: text, drawn, on a terminal; else markdown]",
)


def _split(context: click.Context, option: click.Parameter, value: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for names in value for name in names.split(",") if name.strip())


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options, and hand them to it as one `shown: Layout`."""
    from functools import wraps

    @wraps(command)
    def called(**given: Any) -> Any:
        own = {name: given.pop(name) for name in Layout.__dataclass_fields__}
        return command(shown=Layout(**own), **given)

    for option in (
        click.option("--siunitx", is_flag=True, help="LaTeX: numbers in S columns, aligned at their points and ±."),
        click.option("--label", default="", help="LaTeX: the table's label.  [default: tab:results]"),
        click.option("--caption", default="", help="LaTeX: the table's caption."),
        click.option(
            "--spread",
            type=click.Choice(["ci", "sd", "none"]),
            default="ci",
            show_default=True,
            help="What stands beside a mean: its 95 % interval, ± the s.d. of what it is the mean of, nothing.",
        ),
        click.option("--decimals", type=click.IntRange(0, 12), help="Digits behind the point.  [default: as they fit]"),
        click.option(
            "--columns",
            multiple=True,
            metavar="NAME[,NAME…]",
            callback=_split,
            help="These columns alone, in this order: headings, or how they begin; keys of CSV and JSON.",
        ),
        form_option,
    ):
        called = option(called)
    return called
