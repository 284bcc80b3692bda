"""What was decided before looking: the plan that `vrbench study` leaves beside a study's runs (`<study>/plan.json`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from vrbench.report.arms import Arm
from vrbench.report.smallest import Smallest

FILE = "plan.json"


@dataclass(frozen=True)
class Registered:
    """A study's plan, as far as a report follows it."""

    study: str
    digest: str
    when: str
    baseline: str
    smallest: Smallest
    tests: int
    """Comparisons of the study's one family."""

    @property
    def note(self) -> str:
        """The plan in one line."""
        return (
            f"Study {self.study}: plan {self.digest}, registered {self.when}, before its first run: "
            f"{self.tests} comparisons with {self.baseline}, one family; smallest effect {self.smallest}."
        )


def registered(arms: Sequence[Arm]) -> Registered | None:
    """The plan of the one study that all runs of the arms lie in; None without one, or where there are several studies.

    Raises ValueError for a plan.json that is not one.
    """
    studies = {study for arm in arms for run in arm.runs for study in run.directory.resolve().parents[:2]}
    paths = [study / FILE for study in sorted(studies) if (study / FILE).exists()]
    if len(paths) != 1:
        return None
    (path,) = paths
    if not all(path.parent in run.directory.resolve().parents[:2] for arm in arms for run in arm.runs):
        return None
    noted = json.loads(path.read_bytes())
    try:
        plan = noted["plan"]
        smallest = Smallest.parse(plan["smallest_effect"])
        return Registered(plan["study"], noted["digest"], noted["when"], plan["baseline"], smallest, noted["tests"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: is no plan that vrbench study registered ({error!r})") from error
