"""The compact table of a study: one row per arm (runs that differ in the seed alone), mean ± s.d. over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrbench import terminal
from vrbench.report.arms import Arm
from vrbench.report.cautions import mark, notes
from vrbench.report.collect import collect


def mean_and_spread(values: Iterable[float]) -> str:
    """`mean ± s.d.` of the finite values to four digits; nan where there is none, no spread from a single one."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return "nan"
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


@dataclass(frozen=True)
class Compact:
    """A study's table as text: one row per arm of which a run is over."""

    columns: list[str]
    rows: list[list[str]]

    @property
    def markdown(self) -> str:
        """As a Markdown table, without a column of settings where no arm has any."""
        kept = [place for place, name in enumerate(self.columns) if name != "settings" or any(self.column(place))]
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "".join(f"| {' | '.join(line[place] for place in kept)} |\n" for line in lines)

    def without_repetition(self) -> Compact:
        """Without what need not be repeated on a narrow screen: the models where each task has one, diverged runs
        where there are none."""
        pairs = {(row[0], row[1]) for row in self.rows}
        diverged = self.columns.index("diverged")
        dropped = {1} if len(pairs) == len({task for task, _ in pairs}) else set()
        dropped |= {diverged} if set(self.column(diverged)) == {"0"} else set()
        kept = [place for place in range(len(self.columns)) if place not in dropped]
        return Compact([self.columns[place] for place in kept], [[row[place] for place in kept] for row in self.rows])

    def column(self, place: int) -> list[str]:
        """The texts below a heading."""
        return [row[place] for row in self.rows]


def compact(arms: Sequence[Arm]) -> Compact:
    """The table of some arms. Test has a column where a run was to read it: never in a folder of a search's trials."""
    shown = [arm for arm in arms if arm.over]
    test = any(arm.by_seed(f"test/{arm.metric}") for arm in shown)
    columns = ["task", "model", "optimizer", "settings", "validation (best)", *(["test"] if test else [])]
    rows = []
    for arm in shown:
        over = arm.over
        arrow = "↑" if arm.direction == "max" else "↓"
        tested = list(arm.by_seed(f"test/{arm.metric}").values())
        seconds = statistics.fmean(sum(run.summary["seconds"].values()) for run in over if run.summary)
        rows.append(
            [
                arm.task,
                arm.model,
                arm.optimizer,
                f"{arm.settings_text} {mark(arm)}".strip(),
                f"{arm.metric} {arrow} {mean_and_spread(arm.by_seed(f'best/val/{arm.metric}').values())}",
                *([mean_and_spread(tested) if tested else ""] if test else []),
                str(len(over)),
                str(arm.diverged),
                f"{seconds:.1f}",
            ]
        )
    return Compact([*columns, "n", "diverged", "s / run"], rows)


@terminal.output()
def print_study(folder: Path) -> None:
    """Print the table of every run in the study's folder, and where the files are."""
    from vrbench.report import formats, screen

    arms = collect([folder])
    found = compact(arms)
    told = notes(arms, "test" if "test" in found.columns else "val")
    if any(run.status == "unfinished" for arm in arms for run in arm.runs):
        told.append("the same command goes on with unfinished runs")
    told.append("mean ± s.d. over seeds; a difference needs a test before it is a finding")
    numeric, title = frozenset(found.columns[4:]), f"study {folder.name}"
    if screen.is_terminal():
        small = found.without_repetition()
        print(screen.text(formats.Table(small.columns, small.rows, [], told, numeric, title)), end="")
    else:
        print(formats.markdown(formats.Table(found.columns, found.rows, [], told, numeric, title)), end="")
    print(f"files: {folder}")
