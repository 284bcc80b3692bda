"""docs/results.md, the README's findings and its first table, filled in from the committed studies.

    python scripts/results_page.py            # write both
    python scripts/results_page.py --check    # exit code 1 where they are not what the records give

No measured number of theirs is typed by hand. Their texts are Jinja templates, scripts/pages/results.md.jinja and
findings.md.jinja. What those can ask for is a `Published` study, by `study("<folder of results/>")`, and the paper's
own figures, as `paper`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from vrbench.report.arms import collect
from vrbench.report.paper import published
from vrbench.report.statistics import holm
from vrbench.report.study import compact
from vrbench.runs import archive
from vrbench.runs.records import write_whole

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGES = Path(__file__).parent / "pages"
SECTION = "## What it found so far\n"
"""Of the README: this heading up to the next."""


class Published:
    """A study as it is committed in a folder of results/. Raises OSError where it lacks a file that is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """verdicts.json: the rows of each table, in full precision."""
        rows: dict[str, list[dict[str, Any]]] = self.read("verdicts.json")
        return rows

    def compared(self, rival: str, baseline: str = "adamw") -> list[dict[str, Any]]:
        """The comparisons of a rival with the baseline, one a task, model and schedule."""
        return self.rows[f"{rival} against {baseline}"]

    def family(self, rival: str) -> list[float]:
        """Holm's p values of a rival's comparisons with all its baselines, as the one family that they are."""
        tables = [rows for title, rows in self.rows.items() if title.startswith(f"{rival} against ")]
        return holm([row["p"] for rows in tables for row in rows])

    def read(self, name: str) -> Any:
        """Another JSON file of the folder."""
        return json.loads((self.folder / name).read_bytes())

    @property
    def counted(self) -> str:
        """How many runs were planned and are over, and how they ended."""
        lines = (self.folder / "tables.md").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if re.search(r" are over\b", line))

    @property
    def compact(self) -> str:
        """The table that its multirun ends with, as Markdown."""
        with tempfile.TemporaryDirectory() as temporary:
            archive.unpack(self.folder / archive.FILE, Path(temporary) / self.folder.name)
            return compact(collect([Path(temporary) / self.folder.name])).markdown


@lru_cache
def study(name: str) -> Published:
    """The study of a folder of results/."""
    return Published(RESULTS / name)


def figure(value: float, digits: int = 4) -> str:
    """So many significant digits, a real minus; a dash where there is no number, 0 for what rounding left of it."""
    if value is not None and abs(value) < 1e-15:
        return "0"
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}".replace("-", "−")


def interval(row: dict[str, Any], name: str = "difference", digits: int = 3) -> str:
    """`0.05 [0.01, 0.09]` of a row's value and its bounds."""
    low, high = (figure(row[f"{name}_{end}"], digits) for end in ("low", "high"))
    return f"{figure(row[name], digits)} [{low}, {high}]"


def render(template: str) -> str:
    """The text of a template. Raises jinja2.TemplateError, OSError, KeyError for what the records do not hold."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(PAGES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    pages.filters |= {"figure": figure, "interval": interval}
    return pages.get_template(template).render(study=study, paper=published())


def pages() -> dict[Path, str]:
    """What each file is to hold."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    table = study("quickstart").compact
    text = re.sub(rf"{re.escape(table.partition(chr(10))[0])}\n(\|.*\n)+", lambda _: table, text)
    before, _, rest = text.partition(SECTION)
    after = rest[rest.index("\n## ") + 1 :]
    return {
        ROOT / "docs" / "results.md": render("results.md.jinja"),
        readme: f"{before}{SECTION}\n{render('findings.md.jinja').strip()}\n\n{after}",
    }


def main() -> None:
    """Write the files, or say which are not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    old = {path: text for path, text in pages().items() if path.read_text(encoding="utf-8") != text}
    for path, text in old.items():
        print(path.relative_to(ROOT))
        if not check:
            write_whole(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    sys.exit(bool(old) if check else 0)


if __name__ == "__main__":
    main()
