"""A picture of a command on a terminal.

    python scripts/terminal_picture.py --output docs/images/terminal.svg --title "vrbench experiment=quickstart" \\
        --lines 40 --at "(?s) [1-9]\\d*/180 .*20/36 runs" -- vrbench experiment=quickstart

The command runs on a pseudo-terminal; its screen is kept as it is when PATTERN is first found on it.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the tests' terminal

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text
from screen import Terminal  # type: ignore[import-not-found]

COLORS = {"brown": "yellow"}
"""pyte's names that are not rich's."""


def main() -> None:
    """Write the SVG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--at", required=True, help="regular expression for a text that the screen is to show")
    parser.add_argument("--title", help="what stands above it; the command where it is not given")
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--lines", type=int, default=32)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command, after --")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    shown = Terminal(command, options.columns, options.lines)
    shown.read(until=lambda screen: re.search(options.at, "\n".join(screen)) is not None, seconds=3600)
    options.output.write_text(picture(shown.screen, options.title or " ".join(command)), encoding="utf-8")
    shown.child.terminate()


def picture(screen: pyte.Screen, title: str) -> str:
    """The screen as an SVG, without its empty lines below."""
    lines = [line(screen, row) for row in range(screen.lines)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    console = Console(record=True, width=screen.columns, file=open("/dev/null", "w"), legacy_windows=False)  # noqa: SIM115
    for text in lines:
        console.print(text, no_wrap=True, crop=True)
    drawn = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME, unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # fonts would be fetched from elsewhere


def line(screen: pyte.Screen, row: int) -> Text:
    """A line of the screen with its colours."""
    text = Text()
    for column in range(screen.columns):
        cell = screen.buffer[row][column]
        text.append(cell.data, Style(color=color(cell.fg), bold=cell.bold, italic=cell.italics))
    text.rstrip()
    return text


def color(name: str) -> str | None:
    """pyte's colour as rich's: hex digits, or one of the terminal's own."""
    if name == "default":
        return None
    if len(name) == 6 and all(letter in "0123456789abcdef" for letter in name):
        return f"#{name}"
    name = COLORS.get(name, name)
    return name.replace("bright", "bright_")


if __name__ == "__main__":
    main()
