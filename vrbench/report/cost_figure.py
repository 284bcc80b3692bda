"""What the arms of a task cost: training time per step, and peak memory where it is known to be a run's own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vrbench.report.arms import Arm
from vrbench.report.curves import representative
from vrbench.report.style import NoData, headline, legend_below, panels, room, wrapped
from vrbench.report.view import DEFAULT, View
from vrbench.runs.records import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 24
NO_MEMORY = "peak memory is not shown: runs of one command shared a process, whose peak is no run's own"


def cost(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """Training time per step and peak memory of each arm: the mean as a bar, every run as a dot."""
    from matplotlib.ticker import MaxNLocator

    drawn = [arm for arm in (arms if view.only else representative(arms, MOST_ROWS)) if arm.seconds]
    if not drawn:
        raise NoData("no run is finished")
    commands = cache(commands_of)
    memories = {arm.label: own_memory(arm, commands) for arm in drawn}
    sides: list[tuple[str, Callable[[Arm], list[float]]]] = [("training time per step (ms)", _milliseconds)]
    if any(memories.values()):
        sides.append(("peak memory of a run (MiB)", lambda arm: memories[arm.label]))
    width = view.size.width if view.size else 6.75
    style, labels = view.looks(arms), [wrapped(view.label(arm), min(2.0, 0.4 * width)) for arm in reversed(drawn)]
    lines = max(label.count("\n") + 1 for label in labels)
    figure, axes = panels(
        len(sides), room(2, size=view.size), height=0.8 + (0.1 + 0.14 * lines) * len(drawn), width=width, size=view.size
    )
    for axis, (name, measure) in zip(axes, sides, strict=True):
        for place, arm in enumerate(reversed(drawn)):
            values = measure(arm)
            if values:
                look = style[arm.label]
                axis.barh(place, sum(values) / len(values), color=look.color, alpha=0.35, height=0.7)
                axis.plot(values, [place] * len(values), **look.point)
        axis.set_xlabel(wrapped(name, 0.55 * width / (1 if len(axes) == 1 else room(2, size=view.size)), 9))
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="y", visible=False)
        beside = axis is not axes[0] and axis.get_subplotspec().colspan.start > 0  # type: ignore[union-attr]
        axis.set_yticks(range(len(drawn)), [""] * len(drawn) if beside else labels)
    left_out = len([arm for arm in arms if arm.seconds]) - len(drawn)
    of = f": the best {len(drawn)} by validation, {left_out} are left out" if left_out else ""
    headline(figure, f"{arms[0].task}, {arms[0].model}{of}")
    many = sorted({len(arm.seconds) for arm in drawn})
    counts = "–".join(map(str, dict.fromkeys([many[0], many[-1]])))
    note = f"Bar: mean over {counts} finished run{'s' if many != [1] else ''}; marks: each run"
    legend_below(figure, [], view.size, note if any(memories.values()) else f"{note}; {NO_MEMORY}")
    return figure


def _milliseconds(arm: Arm) -> list[float]:
    finished = [run.summary for run in arm.over if run.summary and run.status == "finished"]
    return [1e3 * summary["seconds"]["train"] / summary["steps"] for summary in finished]


Commands = Callable[[Path], Counter[str]]


def own_memory(arm: Arm, commands: Commands) -> list[float]:
    """Peak memory in MiB of each run that had its process for itself: the device's where there is one.

    Both peaks are those of the process so far (`peak_memory_bytes`, `peak_device_memory_bytes`): of the first run alone
    they are its own. An older manifest does not say which was the first; what it says is the command. Runs of one study
    with one command came from one multirun, search or plan, and are left out. `commands` counts them by the study's
    folder (`commands_of`).
    """

    def alone(run: Run) -> bool:
        before = run.manifest["machine"].get("runs_before")
        return commands(run.directory.resolve().parent)[_command(run)] < 2 if before is None else before == 0

    found = [
        run.manifest.get("peak_device_memory_bytes", run.manifest.get("peak_memory_bytes"))
        for run in arm.over
        if alone(run)
    ]
    return [value / 2**20 for value in found if value is not None]


def commands_of(study: Path) -> Counter[str]:
    """How many runs of a study's folder each command has."""
    return Counter(_command(Run(path.parent)) for path in study.glob("*/manifest.json"))


def _command(run: Run) -> str:
    return json.dumps(run.manifest["command"])
