"""Run folders as data frames: `vrbench.load`. docs/python.md"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrbench.report import run_table
from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.view import View
from vrbench.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

RESULTS = "results/runs"


def load(*paths: str | Path, tuning: bool = False) -> Runs:
    """The runs at or below these folders, be they of a run, of a study or of many; `results/runs`, where none is given.

    `tuning=True`: the trials of searches too. Raises FileNotFoundError for a folder that is not there, ValueError where
    there is no run, or a record that cannot be read.
    """
    folders = [Path(path) for path in paths] or [Path(RESULTS)]
    arms = collect(folders, tuning=tuning)
    if not arms:
        raise ValueError(f"{' '.join(map(str, folders))}: no run that is over")
    return Runs(tuple(arms))


@dataclass(frozen=True)
class Runs:
    """Runs that were read, by arm: the runs of one configuration, which differ in the seed alone."""

    arms: tuple[Arm, ...]

    def __iter__(self) -> Iterator[Run]:
        """Every run, unfinished ones too."""
        return (run for part in self._parts for run in part.runs)

    def __len__(self) -> int:
        return sum(len(part.runs) for part in self._parts)

    def __repr__(self) -> str:
        return f"<Runs: {len(self)} of {len(self.arms)} arms>"

    @property
    def _parts(self) -> list[Arm]:
        """The arms, each tuning of a method by itself."""
        return [part for arm in self.arms for part in arm.tunings]

    def runs(self) -> DataFrame:
        """One row a run: what it is, its final metrics (`test/accuracy`), those of its best validation
        (`best/val/accuracy`), and the settings in which runs differ. Missing where a run has none.
        """
        import pandas

        table = run_table.runs(self.arms)
        return pandas.DataFrame(table.records, columns=table.headings)

    def metrics(self, *keys: str) -> DataFrame:
        """One row for each step that a run has logged: `study`, `task`, `model`, `optimizer`, `label`, `seed`, `run`
        (its folder's name), `step`, and the metrics (`train/loss`, `val/accuracy`), NaN where a step has none.

        With keys, those alone, and the rows that have one of them.
        """
        import pandas

        columns = _Columns(keys)
        for head, run in self._heads():
            columns.add(head, run.rows())
        if missing := [key for key in keys if key not in columns.seen]:
            there = ", ".join(key for key in columns.seen if key != "step")
            raise KeyError(f"{', '.join(missing)}: no run has logged it; there are {there}")
        frame = pandas.DataFrame(columns.whole())
        if not keys:
            return frame
        return frame[[*columns.heads, "step", *keys]].dropna(subset=list(keys), how="all").reset_index(drop=True)

    def _heads(self) -> Iterator[tuple[dict[str, Any], Run]]:
        for part in self._parts:
            for run in part.runs:
                manifest = run.manifest
                yield {
                    "study": manifest["study"], "task": part.task, "model": part.model, "optimizer": part.optimizer,
                    "label": part.label, "seed": int(manifest["seed"]), "run": run.directory.name,
                }, run  # fmt: skip

    def summary(self, baseline: str | None = None, split: str = "test") -> DataFrame:
        """One row for each arm: mean over seeds with its interval, s.d., how many runs, how many diverged.

        With a baseline (an optimizer or a label) its difference from that, p and the verdict too, all of them one
        family. As `vrbench report table`. Raises ValueError where the baseline names no arm, or several.
        """
        import pandas

        from vrbench.report.verdicts import summary

        table = summary(self.arms, split=split, baseline=baseline)
        return pandas.DataFrame(table.records)

    def plot(self, kind: str = "curves", arms: Sequence[str] = (), metric: str = "") -> list[Axes]:
        """Draw a figure of the kinds of `vrbench report figures`: its axes, those of every task after one another.

        `arms` are drawn alone, where some are named; `metric` stands in for each task's primary one. Each axes' figure
        is `axes.figure`: a notebook with `%matplotlib inline` shows it. Raises ValueError for a kind that there is not,
        and where no run has the data for it.
        """
        from vrbench.report import figures

        found = figures.drawn(self.arms, kind, View(only=tuple(arms), metric=metric))
        return [axes for figure in found for axes in figure.axes]


class _Columns:
    """Rows of runs as columns, eight bytes a number: as dictionaries a million rows are gigabytes."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._wanted = {"step", *keys} if keys else None
        self.heads: dict[str, list[Any]] = {}
        self.seen: dict[str, None] = {}
        """Every metric, in the order in which they are met."""
        self._values: dict[str, MutableSequence[Any]] = {}
        self._fractions: set[str] = set()
        self._count = 0

    def add(self, head: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
        """The rows of one run; `head` is what all of them say."""
        before = self._count
        for row in rows:
            for key, value in row.items():
                if key not in self.seen:
                    self.seen[key] = None
                if self._wanted is None or key in self._wanted:
                    self._put(key, value)
            self._count += 1
        for key, value in head.items():
            self.heads.setdefault(key, []).extend(itertools.repeat(value, self._count - before))

    def _put(self, key: str, value: Any) -> None:
        column = self._values.setdefault(key, array("d"))
        if len(column) < self._count:
            self._fractions.add(key)
            column.extend(itertools.repeat(math.nan, self._count - len(column)))
        if type(value) is not int:
            self._fractions.add(key)
        try:
            column.append(value)
        except TypeError:  # a word
            self._values[key] = [*column, value]

    def whole(self) -> dict[str, Any]:
        """All columns, of one length: NaN where a row has none, whole numbers where all rows have such."""
        import numpy as np

        if not self._count:
            return {}
        found: dict[str, Any] = dict(self.heads)
        for key in filter(self._values.__contains__, self.seen):
            column = self._values[key]
            if len(column) < self._count:
                self._fractions.add(key)
                column.extend(itertools.repeat(math.nan, self._count - len(column)))
            kind = np.float64 if key in self._fractions else np.int64
            found[key] = np.array(column, dtype=kind) if isinstance(column, array) else column
        return found
