"""The compact table of a study: one row per arm (runs that differ in the seed alone), mean ± s.d. over its seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vrbench.records import Run, find_runs


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration, over its seeds."""

    choices: dict[str, str]
    """Chosen task, model and optimizer, and then every key that tells this arm from others of the same choices."""
    runs: list[Run]

    @property
    def over(self) -> list[Run]:
        """Runs that are finished or diverged."""
        return [run for run in self.runs if run.summary is not None]

    @property
    def diverged(self) -> int:
        """How many runs ended with a loss that is not finite."""
        return sum(run.status == "diverged" for run in self.runs)

    def values(self, key: str) -> list[float]:
        """One number per finished run: `best/<key>` reads the best validation's metrics, other keys the final ones."""
        found = []
        for run in self.over:
            assert run.summary is not None
            metrics = run.summary["metrics"] if not key.startswith("best/") else run.summary["best"]["metrics"]
            value = metrics.get(key.removeprefix("best/"))
            if run.status == "finished" and value is not None:
                found.append(float(value))
        return found


def arms(runs: list[Run]) -> list[Arm]:
    """Group runs by configuration, in order of task, model and optimizer; nothing is pooled over what differs."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.manifest["arm"], []).append(run)
    flat = {arm: dict(_flatten(_config(members[0]))) for arm, members in groups.items()}
    named: dict[str, dict[str, str]] = {}
    for arm, members in groups.items():
        chosen = members[0].manifest["choices"]
        named[arm] = {group: chosen[group] for group in ("task", "model", "optimizer")}
    found = []
    for arm, members in groups.items():
        twins = [flat[other] for other in groups if named[other] == named[arm]]
        differing = sorted(key for key in flat[arm] if any(twin.get(key) != flat[arm][key] for twin in twins))
        found.append(Arm({**named[arm], **{key: str(flat[arm][key]) for key in differing}}, members))
    return sorted(found, key=lambda arm: list(arm.choices.items()))


def _config(run: Run) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((run.directory / "config.yaml").read_bytes())
    for key in ("seed", "study", "results_dir", "force", "logger"):
        config.pop(key, None)
    return config


def _flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def mean_and_spread(values: list[float]) -> str:
    """`mean ± s.d.` to four digits; nan where there is nothing, no spread from a single value."""
    if not values:
        return "nan"
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


def print_study(folder: Path) -> None:
    """Print the table of every run in the study's folder, and where the files are."""
    from rich.console import Console
    from rich.table import Table

    found = arms(find_runs(folder))
    table = Table(title=f"study {folder.name}", title_justify="left", caption_justify="left")
    for column in ("task", "model", "optimizer", "settings"):
        table.add_column(column, overflow="fold")
    for column in ("validation (best)", "test", "n", "diverged", "s / run"):
        table.add_column(column, justify="right")
    unfinished = 0
    for arm in found:
        over = arm.over
        unfinished += len(arm.runs) - len(over)
        primary = next((run.summary["primary"] for run in over if run.summary), None)
        if primary is None:
            continue
        metric = primary["metric"].split("/", 1)[1]
        arrow = "↑" if primary["direction"] == "max" else "↓"
        settings = " ".join(f"{key}={value}" for key, value in list(arm.choices.items())[3:])
        seconds = [sum(run.summary["seconds"].values()) for run in over if run.summary]
        table.add_row(
            arm.choices["task"],
            arm.choices["model"],
            arm.choices["optimizer"],
            settings,
            f"{metric} {arrow} {mean_and_spread(arm.values(f'best/val/{metric}'))}",
            mean_and_spread(arm.values(f"test/{metric}")),
            str(len(over)),
            str(arm.diverged),
            f"{statistics.fmean(seconds):.1f}" if seconds else str(math.nan),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)
    if unfinished:
        console.print(f"{unfinished} unfinished: the same command goes on with them")
    console.print("mean ± s.d. over seeds; a difference needs a test before it is a finding")
    console.print(f"files: {folder}", soft_wrap=True)
