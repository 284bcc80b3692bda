"""Draw the edge-of-stability figure of runs: `python scripts/plot_eos.py results/runs/eos [--format svg]`.

Every run folder at or below the given paths that has eos/ metrics gets an `eos.png` beside its metrics.jsonl.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> int:
    """Draw all figures; 1 where there was nothing to draw."""
    from vrbench.records import find_runs
    from vrbench.report.eos_figure import draw

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("paths", nargs="+", type=Path, help="run folders, or folders of runs")
    parser.add_argument("--format", choices=("png", "svg", "pdf"), default="png")
    options = parser.parse_args()
    drawn = 0
    try:
        runs = [run for path in options.paths for run in find_runs(path)]
    except FileNotFoundError as error:
        parser.error(str(error))
    for run in runs:
        target = run.directory / f"eos.{options.format}"
        try:
            draw(list(run.rows()), run.directory.name, target)
        except ValueError as error:
            print(f"{error}", file=sys.stderr)
            continue
        print(target)
        drawn += 1
    if not drawn:
        print(f"no run with eos/ metrics in {', '.join(map(str, options.paths))}", file=sys.stderr)
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main())
