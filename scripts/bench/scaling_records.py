"""What scripts/bench/scaling.py measures of records and reports: runs of a study, seeds of a comparison, rows of a run.

A function takes a size and the folder of that size, makes what is needed, and returns the work that is measured.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import many_runs

Work = Callable[[], object]


def exhaust(items: Iterator[object]) -> None:
    for _ in items:
        pass


# ---- runs in a study ------------------------------------------------------------------------------------------------

OPTIMIZERS = ("vradam", "adamw")
SEEDS_AN_ARM = 5
"""So many that all sizes have whole arms: those of two seeds need another interval, and its library."""


def study(size: int, folder: Path) -> None:
    """Two studies: `seeds`, two optimizers with half of the runs each, and `arms`, five seeds of each rate."""
    half = math.ceil(size / 2)
    for optimizer in OPTIMIZERS:
        source = many_runs.trained(folder / "source", optimizer)
        many_runs.copies(source, folder / "seeds", ((seed, many_runs.RATE) for seed in range(half)))
    many_runs.copies(
        many_runs.trained(folder / "source"),
        folder / "arms",
        ((place % SEEDS_AN_ARM, (place // SEEDS_AN_ARM + 1) / 1e6) for place in range(size)),
    )


def again(size: int, folder: Path) -> Work:
    """The command of a study whose runs are all over."""
    words = [f"results_dir={folder}", "study=seeds", f"optimizer={','.join(OPTIMIZERS)}", *many_runs.WORDS]
    return partial(vrbench, "-m", *words, f"seed=range({math.ceil(size / 2)})")


def vrbench(*words: str) -> None:
    """The command line in this process. Raises RuntimeError with its exit code where it is not 0."""
    from vrbench.app.main import main

    sys.argv = ["vrbench", *words]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            if end.code not in (0, None):
                raise RuntimeError(f"vrbench {' '.join(words)}: exit code {end.code}") from None


def report(*words: str) -> Callable[[int, Path], Work]:
    """`vrbench report` with these words, of which the last is a study in the folder."""
    return lambda size, folder: partial(vrbench, "report", *words[:-1], str(folder / words[-1]))


def index(size: int, folder: Path) -> Work:
    from vrbench.runs.index import read_index

    return lambda: read_index(folder / "arms")


def first_index(size: int, folder: Path) -> Work:
    from vrbench.runs.index import FILE, read_index

    (folder / "arms" / FILE).unlink(missing_ok=True)
    return lambda: read_index(folder / "arms")


def new_runs(size: int, folder: Path) -> Work:
    """Where as many runs as the study has would lie that it does not have yet."""
    from vrbench.runs.records import run_folder

    return lambda: [run_folder(folder / "arms", f"new-{place:016x}", f"{place:016x}") for place in range(size)]


def summary(size: int, folder: Path) -> Work:
    import vrbench

    vrbench.load(folder / "source").summary()  # imports, which are no part of it
    return lambda: vrbench.load(folder / "arms").summary()


# ---- seeds of a comparison ------------------------------------------------------------------------------------------


def arm_of(size: int, mean: float) -> dict[int, float]:
    """So many seeds' numbers, drawn around the mean."""
    import numpy as np

    return dict(enumerate(np.random.default_rng(int(1e4 * mean)).normal(mean, 0.01, size)))


def comparison(size: int, folder: Path) -> Work:
    """Everything that is said of two arms: bootstrap interval, sign-flip test, practical probabilities."""
    from vrbench.report.pairs import pair
    from vrbench.report.smallest import Smallest

    smallest = Smallest.parse("1%")
    pair(arm_of(3, 0.90), arm_of(3, 0.901), "max", smallest)  # imports, which are no part of it
    sizes = count(size)  # tables of one size are drawn once in a process

    def work() -> object:
        some = next(sizes)
        a, b = arm_of(some, 0.90), arm_of(some, 0.901)
        return pair(a, b, "max", smallest).practical

    return work


def of_differences(name: str) -> Callable[[int, Path], Work]:
    """One statistic of the differences of two arms."""

    def prepare(size: int, folder: Path) -> Work:
        from vrbench.report import equivalence, statistics

        statistic: Callable[[list[float]], object] = {
            "bootstrap": statistics.bootstrap_t,
            "sign-flip": statistics.sign_flip,
            "signed-rank": lambda gains: equivalence.signed_rank(gains, 0.01),
        }[name]
        statistic([1.0, 2.0, 4.0])  # imports, which are no part of it
        sizes = count(size)

        def work() -> object:
            some = next(sizes)
            a, b = arm_of(some, 0.90), arm_of(some, 0.901)
            return statistic([a[seed] - b[seed] for seed in a])

        return work

    return prepare


# ---- rows of a run --------------------------------------------------------------------------------------------------

ROWS = "rows"


def run_of_rows(size: int, folder: Path) -> None:
    """A run whose metrics.jsonl has so many rows."""
    source = many_runs.trained(folder / "source")
    many_runs.copies(source, folder / ROWS, [(0, many_runs.RATE)])
    (run,) = (path.parent for path in (folder / ROWS).glob("*/manifest.json"))
    row = json.loads((source / "metrics.jsonl").read_text().splitlines()[-1])
    with open(run / "metrics.jsonl", "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({**row, "step": number, "train/loss": 1 / number}) + "\n" for number in range(1, size + 1)
        )


def only_run(folder: Path) -> Any:
    from vrbench.runs.records import find_runs

    (run,) = find_runs(folder / ROWS)
    return run


def reading(size: int, folder: Path) -> Work:
    return lambda: exhaust(only_run(folder).rows())


def thinning(size: int, folder: Path) -> Work:
    """The curve of a figure, of rows that are read already."""
    import vrbench
    from vrbench.report.curves import columns, curve

    (arm,) = vrbench.load(folder / ROWS).arms
    columns(arm.runs[0])
    return lambda: curve(arm, "train/loss")


def table_of_rows(size: int, folder: Path) -> Work:
    import pandas

    import vrbench

    pandas.DataFrame({"label": ["a"]})  # imports, which are no part of it

    return lambda: vrbench.load(folder / ROWS).metrics()


def going_on(size: int, folder: Path) -> Work:
    """What a run that goes on does with its rows before its first step."""
    from vrbench.runs.records import MetricsFile, check_rows

    path = only_run(folder).directory / "metrics.jsonl"
    file = MetricsFile(path, path.stat().st_size)
    noted = file.sync()

    def work() -> None:
        check_rows(path, noted)
        MetricsFile(path, noted["length"]).close()

    return work
