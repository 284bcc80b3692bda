"""docs/results.md with its curves, the README's findings and its first table, filled in from the committed studies.

    python scripts/results_page.py            # write them
    python scripts/results_page.py --check    # exit code 1 where they are not what the records give

No measured number of theirs is typed by hand. Their texts are Jinja templates, scripts/pages/results.md.jinja and
findings.md.jinja. What those can ask for is a `Committed` study, by `study("<folder of results/>")`, and the paper's
own figures, as `paper`.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import plot_figure2
from committed import Committed, taken_holm

from vrbench.report.arms import Arm
from vrbench.report.compare import Verdict
from vrbench.report.pairs import Pairs
from vrbench.report.paper import published
from vrbench.report.statistics import bootstrap_t, student
from vrbench.runs.records import write_whole

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGES = Path(__file__).parent / "pages"
SECTION = "## What it found so far\n"
"""Of the README: this heading up to the next."""
CURVES = {"paper_figure2": "figure2.svg", "paper_edge": "edge.svg"}
"""The studies that are curves, one line a run, and the picture of each."""


@lru_cache
def study(name: str) -> Committed:
    """The study of a folder of results/."""
    return Committed(RESULTS / name)


def figure(value: float, digits: int = 4) -> str:
    """So many significant digits, a real minus; a dash where there is no number, 0 for what rounding left of it."""
    if value is not None and abs(value) < 1e-15:
        return "0"
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}".replace("-", "−")


def interval(row: dict[str, Any], name: str = "difference", digits: int = 3) -> str:
    """`0.05 [0.01, 0.09]` of a row's value and its bounds."""
    low, high = (figure(row[f"{name}_{end}"], digits) for end in ("low", "high"))
    return f"{figure(row[name], digits)} [{low}, {high}]"


def bounds(pairs: Pairs) -> str:
    """The difference of two arms and its interval, as `interval` of a row."""
    low, high = (figure(bound, 3) for bound in pairs.interval)
    return f"{figure(pairs.difference, 3)} [{low}, {high}]"


def estimate(values: Any) -> str:
    """`0.05 [0.01, 0.09]`: the mean of some numbers with Student's interval."""
    low, high = (figure(bound, 3) for bound in student(values))
    return f"{figure(statistics.fmean(values), 3)} [{low}, {high}]"


def factor(logarithms: Any) -> str:
    """`2 [1.5, 2.5]`: e to `estimate`, of logarithms of ratios."""
    low, high = (figure(math.exp(bound), 2) for bound in student(logarithms))
    return f"{figure(math.exp(statistics.fmean(logarithms)), 2)} [{low}, {high}]"


def over_seeds(arm: Arm, key: str) -> str:
    """`0.5 [0.4, 0.6]`: an arm's mean over finished runs with its bootstrap-t interval; how many diverged, if any."""
    known = [value for value in arm.by_seed(key).values() if math.isfinite(value)]
    parts = []
    if known:
        low, high = bootstrap_t(known)
        ends = f" [{figure(low, 3)}, {figure(high, 3)}]" if math.isfinite(high - low) else ""
        parts.append(figure(statistics.fmean(known)) + ends)
    if arm.diverged:
        parts.append(f"{arm.diverged} of {len(arm.over)} diverged")
    return ", ".join(parts)


def by_verdict(rows: Sequence[dict[str, Any]]) -> str:
    """`equivalent on cifar10; worse on hypergrid (by how much is open)`."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        tasks.setdefault((row["verdict"], row["size"]), []).append(row["task"])
    return "; ".join(
        f"{word} on {', '.join(own)}{f' ({size})' if size else ''}" for (word, size), own in sorted(tasks.items())
    )


def claim(verdict: Verdict) -> str:
    """What a verdict on "VRAdam is better" says of the paper's claim that its loss is the lower one."""
    said = {
        "better": "reproduced at this scale",
        "worse": "not reproduced: it is higher",
        "equivalent": "not reproduced: no difference that counts",
        "not comparable": "not comparable",
    }
    return said.get(verdict.word, "open: too little data")


def environment(*more: Any) -> Any:
    """jinja2's environment with the templates of scripts/pages, those of `more` loaders first, and the filters."""
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=ChoiceLoader([*more, FileSystemLoader(PAGES)]), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    made.filters |= {
        "figure": figure, "interval": interval, "bounds": bounds, "over_seeds": over_seeds, "claim": claim,
        "estimate": estimate, "factor": factor, "by_verdict": by_verdict, "taken_holm": taken_holm,
        "median": statistics.median, "stdev": statistics.stdev, "short": lambda key: key.removeprefix("optimizer."),
    }  # fmt: skip
    return made


def render(template: str) -> str:
    """The text of a template. Raises jinja2.TemplateError, OSError, KeyError for what the records do not hold."""
    text: str = environment().get_template(template).render(study=study, paper=published())
    return text


def pages() -> dict[Path, str]:
    """What each file is to hold."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    table = study("quickstart").compact
    text = re.sub(rf"{re.escape(table.partition(chr(10))[0])}\n(\|.*\n)+", lambda _: table, text)
    before, _, rest = text.partition(SECTION)
    after = rest[rest.index("\n## ") + 1 :]
    curves = {
        RESULTS / name / file: plot_figure2.drawn(study(name)).decode()
        for name, file in CURVES.items()
        if study(name).over
    }
    return curves | {
        ROOT / "docs" / "results.md": render("results.md.jinja"),
        readme: f"{before}{SECTION}\n{render('findings.md.jinja').strip()}\n\n{after}",
    }


def main() -> None:
    """Write the files, or say which are not as they should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    old = {path: text for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in old.items():
        print(path.relative_to(ROOT))
        if not check:
            write_whole(path, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    sys.exit(bool(old) if check else 0)


if __name__ == "__main__":
    main()
