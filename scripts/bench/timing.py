"""What all benchmarks share: sides timed in turns in one process, ratios with their spread, and the record of a result.

The sides take turns, so that whatever else the machine does falls on all of them alike. A figure is the median over the
rounds; a ratio is taken within each round, and its quartiles are its spread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vrbench.runs.records import cpu_model, git_state, now, versions, write_json

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "bench"
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts this process's own time, for a machine that is busy with something else."""


Result = TypeVar("Result")


def nothing() -> None:
    """What a side is waited for with, where it is over when it returns."""


def timed(
    work: Callable[[], Result], clock: str = "wall", wait: Callable[[], object] = nothing
) -> tuple[Result, float]:
    """What one call returns, and the seconds that it takes.

    `wait` waits for a device to end what it was given (`torch.cuda.synchronize`), each time before the clock is read.
    """
    read = CLOCKS[clock]
    wait()
    started = read()
    result = work()
    wait()
    return result, read() - started


def in_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm_up: int = 1,
    calls: Mapping[str, int] | None = None,
    swap: bool = False,
    clock: str = "wall",
    wait: Callable[[], object] = nothing,
) -> dict[str, list[float]]:
    """Seconds a call of each side, round after round.

    In a round every side is called in turn, `calls` times in a row (once, where it names no number); `warm_up` untimed
    rounds of one call come first. `swap` turns the order around from round to round, against a machine that gets
    faster or slower. `wait` as in `timed`.
    """
    for _ in range(warm_up):
        for work in sides.values():
            work()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in [*sides][:: -1 if swap and number % 2 else 1]:
            count, work = (calls or {}).get(name, 1), sides[name]
            _, took = timed(lambda: [work() for _ in range(count)], clock, wait)  # noqa: B023
            found[name].append(took / count)
    return found


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, Any]:
    """`ratio`, the median over the rounds of numerator / denominator, and `ratio_quartiles`, its first and third."""
    quotients = [above / below for above, below in zip(numerators, denominators, strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4) if len(quotients) > 1 else quotients * 3
    return {"ratio": middle, "ratio_quartiles": [low, high]}


Figure = dict[str, Any]
HEADING = f"{'figure':<58} {'median':>7} {'quartiles':>15}  bar"


def figure(name: str, bar: Mapping[str, float] | None, found: Mapping[str, Any], **more: Any) -> Figure:
    """One line of the record: a ratio (see `ratio`), its bar and whether it holds (null without a bar).

    A bar is `{"at_most": 1.3}` or `{"at_least": 0.97}`.
    """
    median, holds = found["ratio"], None
    if bar is not None:
        holds = median <= bar["at_most"] if "at_most" in bar else median >= bar["at_least"]
    row = {"name": name, "bar": bar, "median": median, "quartiles": found["ratio_quartiles"], "holds": holds}
    return {**row, **more}


def line(one: Mapping[str, Any]) -> str:
    """A figure as a line below `HEADING`."""
    low, high = one["quartiles"]
    bar = "none" if one["bar"] is None else " ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in one["bar"].items())
    holds = {None: "", True: "holds", False: "does not hold"}[one["holds"]]
    return f"{one['name']:<58} {one['median']:7.3f} {low:7.3f} {high:7.3f}  {bar:<14} {holds}".rstrip()


def parser(description: str | None, output: str, *, threads: int) -> argparse.ArgumentParser:
    """The options that every benchmark has: torch's threads, and where the record goes (`output` in results/bench)."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, default=threads, help="torch's CPU threads")
    made.add_argument("--output", type=Path, default=RESULTS / output, help="the record of the results")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options of this process, whose torch has that many threads from here on."""
    import torch

    options = made.parse_args()
    torch.set_num_threads(options.threads)
    return options


def write(options: argparse.Namespace, results: Mapping[str, Any]) -> None:
    """Write the record: what was measured, by which command, with which code and versions, on what machine."""
    machine = {"threads": options.threads, "cpu": cpu_model(), "cpus": os.cpu_count(), "load": list(os.getloadavg())}
    git = git_state(ROOT, "results/bench")  # the records that other benchmarks have just written
    made = {"command": " ".join(["python", *sys.argv]), "when": now(), "git": git, "versions": versions()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, {**made, "machine": machine, **results})
    print(f"written to {options.output}")
