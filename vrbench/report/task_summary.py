"""Tables over all tasks at once: who is at the target first, how much of a search space is good, one rate for all."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

from vrbench.report import across_tasks
from vrbench.report.arms import Arm
from vrbench.report.curves import best, groups, leading
from vrbench.report.figures import target_of
from vrbench.report.formats import Table
from vrbench.report.leaves import canonical, covers
from vrbench.report.search_figures import Trial, searches
from vrbench.report.statistics import Reached, time_to_target
from vrbench.report.style import NoData


def time_profiles(arms: Sequence[Arm]) -> Table:
    """One row an optimizer: its score by AlgoPerf's rule, in training seconds and in steps, over all tasks.

    The target of a task is what half of all its runs reach on validation; an optimizer is the arm that speaks for it
    (`curves.leading`), and its time the median over its runs, infinite where half of them or more never arrive.
    """
    seconds: dict[str, dict[str, float]] = {}
    steps: dict[str, dict[str, float]] = {}
    targets = []
    for (task, model), own in groups(arms).items():
        first, name = own[0], f"{task} {model}"
        try:
            target = target_of(own)
        except NoData as reason:
            targets.append(f"{name}: none, {reason}")
            continue
        arrow = "≥" if first.direction == "max" else "≤"
        targets.append(f"{name}: {first.metric} {arrow} {target:.4g}")
        reached = {optimizer: _reached(arm, target) for optimizer, arm in leading(own).items()}
        seconds[name] = {optimizer: plain.median(one.seconds for one in found) for optimizer, found in reached.items()}
        steps[name] = {optimizer: plain.median(one.step for one in found) for optimizer, found in reached.items()}
    by_seconds, by_steps = across_tasks.time_profiles(seconds), across_tasks.time_profiles(steps)
    cells, records = [], []
    for name, profile in sorted(by_seconds.items(), key=lambda item: (-item[1].score, item[0])):
        there = sum(math.isfinite(own.get(name, math.inf)) for own in seconds.values())
        cells.append([name, f"{profile.score:.3f}", f"{by_steps[name].score:.3f}", f"{there} of {len(seconds)}"])
        records.append({"optimizer": name, "score": profile.score, "score_steps": by_steps[name].score,
                        "tasks_reached": there, "tasks": len(seconds), "ratios": list(profile.at),
                        "shares": list(profile.share)})  # fmt: skip
    headings = ["optimizer", "score, seconds", "score, steps", "tasks reached"]
    notes = [
        f"Score: the mean height, up to {across_tasks.LONGEST:g} times the fastest, of the share of tasks whose target "
        "is met within a multiple of the fastest time (arXiv 2306.07179); 1 is the fastest everywhere.",
        f"Targets, reached by half of all runs: {'; '.join(targets)}.",
    ]
    return Table(headings, cells, records, notes, frozenset(headings[1:]))


def _reached(arm: Arm, target: float) -> list[Reached]:
    key = f"val/{arm.metric}"
    found = [time_to_target(list(run.rows()), key, target, arm.direction) for run in arm.over]
    return found or [Reached(math.inf, math.inf)]


def robustness(arms: Sequence[Arm], tolerance: float = 0.05) -> Table | None:
    """One row a task and optimizer: the share of its searches' trials within `tolerance` of its best; None without any.

    The trials of all its searches on a task count together, against the best of them.
    """
    found: dict[tuple[str, str, str], list[Trial]] = {}
    directions, adaptive = {}, set()
    for search in searches(arms):
        key = search.task, search.model, search.optimizer
        found.setdefault(key, []).extend(search.trials)
        directions[key] = search.direction
    for arm in arms:
        adaptive |= {(arm.task, arm.model, arm.optimizer) for one in arm.tuned if one["sampler"] == "tpe"}
    cells, records = [], []
    for key, trials in sorted(found.items()):
        share = across_tasks.good_share([trial.value for trial in trials], directions[key], tolerance)
        shown = f"{100 * share.value:.3g} [{100 * share.low:.3g}, {100 * share.high:.3g}]"
        cells.append([*key, shown, f"{len(trials)}{'*' if key in adaptive else ''}"])
        records.append({**dict(zip(("task", "model", "optimizer"), key, strict=True)), "share": share.value,
                        "low": share.low, "high": share.high, "trials": len(trials),
                        "adaptive": key in adaptive})  # fmt: skip
    if not cells:
        return None
    notes = [
        f"Within {100 * tolerance:g} %: the share of trials whose validation is within that of the best trial's "
        "[95 % Wilson interval]; of random or Sobol draws, the share of the declared space."
    ]
    if adaptive:
        notes.append("* drawn by an adaptive sampler, which looks for good ones: no share of the space.")
    headings = ["task", "model", "optimizer", f"within {100 * tolerance:g} %", "trials"]
    return Table(headings, cells, records, notes, frozenset(headings[3:]))


def one_setting(arms: Sequence[Arm]) -> list[str]:
    """For each optimizer that was run with the same settings on all of at least two tasks, at several of them: the one
    whose largest regret, as a share of the task's best mean validation, is the smallest."""
    tasks = groups(arms)
    told = []
    for optimizer in sorted({arm.optimizer for arm in arms}):
        by_task: dict[str, dict[str, tuple[Arm, float]]] = {}
        for (task, model), own in tasks.items():
            mine = [arm for arm in own if arm.optimizer == optimizer and not arm.parts]
            by_task[f"{task} {model}"] = {_rule(arm.identity): (arm, best(arm)) for arm in mine}
        shared = sorted(set.intersection(*(set(own) for own in by_task.values()))) if by_task else []
        if len(by_task) > 1 and len(shared) > 1:
            costs = {name: [own[rule][1] for rule in shared] for name, own in by_task.items()}
            chosen = shared[across_tasks.one_for_all(costs, "worst")]
            arm = next(iter(by_task.values()))[chosen][0]
            told.append(
                f"{optimizer}: of {len(shared)} settings run on all {len(by_task)} tasks, "
                f"{arm.settings_text or 'the only one'} has the smallest largest regret."
            )
    return told


def _rule(identity: Mapping[str, Any]) -> str:
    return canonical({key: value for key, value in identity.items() if covers("optimizer", key)})
