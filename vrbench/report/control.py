"""The negative control: how often the baseline, tuned again, "differs" from itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vrbench.report import replicates, statistics
from vrbench.report.arms import Arm
from vrbench.report.compare import compare, values
from vrbench.report.smallest import Smallest

Places = Mapping[tuple[str, str], Arm]


def notes(arms: Sequence[Arm], baseline: Places, split: str) -> list[str]:
    """Lines on each task's baseline against itself; one that says so where no baseline was tuned more than once.

    The baseline's control arm (`tuned.control` in its manifests) is compared with it as any rival is, but outside the
    family. Where the baseline has several tunings, they are compared with each other (`replicates.against_itself`).
    """
    told: list[str] = []
    for place, base in baseline.items():
        told += [*_again(arms, place, base, split), *_among(base, split)]
    if not told and any(base.tuned for base in baseline.values()):
        names = ", ".join(sorted({base.optimizer for base in baseline.values()}))
        told.append(f"No negative control: {names} was tuned once, and not against itself.")
    return told


def _place(base: Arm) -> str:
    """Task and model, and the schedule where the arms have several."""
    return " ".join(filter(None, (base.task, base.model, base.settings.get("schedule"))))


def _again(arms: Sequence[Arm], place: tuple[str, str], base: Arm, split: str) -> Iterator[str]:
    for arm in arms:
        if (arm.task, arm.model) == place and arm.control and arm.optimizer == base.optimizer and arm is not base:
            yield f"Negative control, {_place(base)}: {base.optimizer} tuned again: {_outcome(arm, base, split)}."


def _outcome(arm: Arm, base: Arm, split: str) -> str:
    """`no difference from itself (p 0.4, t, 3 replicates)`: paired where seeds are shared, else by Welch's test."""
    (found,) = compare([(arm, base)], split, Smallest())
    if found.obstacles:
        return f"not comparable with itself: {'; '.join(map(str, found.obstacles))}"
    p, how = found.verdict.p, f"{found.verdict.test}, {found.pairs.units} {found.pairs.unit}s"
    if not found.pairs.units:
        again, once = ([float(np.mean(own)) for own in finished(side, split)] for side in (arm, base))
        if min(len(again), len(once)) < 2:
            again, once = ([value for own in finished(side, split) for value in own] for side in (arm, base))
        p, how = replicates.welch(again, once), f"Welch's test, {len(again)} against {len(once)}"
    if math.isnan(p):
        return "too few runs to tell it from itself"
    return f"{'differs' if p < statistics.ALPHA else 'no difference'} from itself (p {p:.2g}, {how})"


def finished(arm: Arm, split: str) -> list[list[float]]:
    """The finite numbers of each of an arm's tunings."""
    own: dict[int, list[float]] = {}
    for (replicate, _), value in values(arm, split).items():
        if math.isfinite(value):
            own.setdefault(replicate, []).append(value)
    return list(own.values())


def _among(base: Arm, split: str) -> Iterator[str]:
    own = finished(base, split)
    if len(own) < 2:
        return
    found = replicates.against_itself(own)
    line = (
        f"Negative control, {_place(base)}: of {found.couples} couples of {base.optimizer}'s {len(own)} tunings "
        f"{found.single} differ by a test over seeds (Welch, 5 %): what a verdict for one tuning says of itself"
    )
    if found.ways:
        line += f"; of {found.ways} ways to split them into halves {found.halves} differ by a test over replicates"
    yield f"{line}."
