"""Every figure that has a bar, from the records in results/bench, as one table: the last line of `make bench`.

python scripts/bench/table.py                                  # on the terminal
python scripts/bench/table.py --page docs/performance.md       # into the page, between its marks
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timing

BEGIN, END = "<!-- figures: scripts/bench/table.py -->", "<!-- end of figures -->"


def records() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records that hold figures, by name."""
    for path in sorted(timing.RESULTS.glob("*.json")):
        record = json.loads(path.read_text())
        if "figures" in record:
            yield path, record


def machine(record: dict[str, Any]) -> str:
    """`AMD EPYC, 2 of 2 cores, torch 2.14.1, 2026-11-27, 6ae1b1e`."""
    of = record["machine"]
    git = record["git"]["sha"][:7] + ("+" if record["git"]["dirty"] else "")
    cores = f"{of['threads']} of {of['cpus']} cores"
    return f"{of['cpu']}, {cores}, torch {record['versions']['torch']}, {record['when'][:10]}, {git}"


def page() -> str:
    """The table in Markdown, one for each record."""
    lines = []
    for path, record in records():
        lines += ["", f"`results/bench/{path.name}`: `{record['command']}` on {machine(record)}", ""]
        lines += ["| figure | median | quartiles | bar | holds |", "|---|---|---|---|---|"]
        for one in record["figures"]:
            low, high = one["quartiles"]
            bar = "" if one["bar"] is None else " ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in one["bar"].items())
            holds = {None: "", True: "yes", False: "**no**"}[one["holds"]]
            lines.append(f"| {one['name']} | {one['median']:.3f} | {low:.3f} – {high:.3f} | {bar} | {holds} |")
    return "\n".join([BEGIN, *lines, "", END])


def main() -> None:
    """Print, or write into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="a Markdown file with the two marks")
    options = parser.parse_args()
    if options.page is not None:
        text = options.page.read_text()
        before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
        options.page.write_text(before + page() + after)
        return
    for path, record in records():
        print(f"\n{path.name}: {machine(record)}\n{timing.HEADING}")
        for one in record["figures"]:
            print(timing.line(one))


if __name__ == "__main__":
    main()
