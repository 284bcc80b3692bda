"""How a user wants figures: of which metric and arms, in which size, under which names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vrbench.report.arms import Arm
from vrbench.report.names import display
from vrbench.report.style import Look, Size, looks


@dataclass(frozen=True)
class View:
    """What is shown, and how; the default is everything, as each figure has it."""

    size: Size | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """Other names, by optimizer or label."""
    only: tuple[str, ...] = ()
    """Optimizers and labels to be drawn; empty: what each figure chooses by itself."""
    metric: str = ""
    """Instead of each task's primary metric: `loss`, or with its direction `f1:max`."""
    every: tuple[Arm, ...] = ()
    """All arms that there are: looks are theirs, whichever are drawn."""

    def looks(self, arms: Sequence[Arm]) -> dict[str, Look]:
        """The look of each arm of one task, by its label."""
        place = {(arm.task, arm.model) for arm in arms}
        return looks_of([*arms, *(arm for arm in self.every if (arm.task, arm.model) in place)])

    def name(self, arm: Arm) -> str:
        """The optimizer of an arm, as figures write it."""
        return self.names.get(arm.optimizer) or display(arm.optimizer, arm.identity)

    def named(self, optimizer: str, arms: Iterable[Arm]) -> str:
        """An optimizer of which there may be no arm, as figures write it."""
        own = next((arm for arm in arms if arm.optimizer == optimizer), None)
        return self.name(own) if own else self.names.get(optimizer) or display(optimizer, {})

    def label(self, arm: Arm) -> str:
        """The arm's label with the optimizer as figures write it: `VRAdam lr=0.001`."""
        return self.names.get(arm.label) or f"{self.name(arm)}{arm.label.removeprefix(arm.optimizer)}"

    def described(self, arm: Arm) -> str:
        """The same, with how many of its runs diverged where any did."""
        lost = f" ({arm.diverged} of {len(arm.over)} diverged)" if arm.diverged else ""
        return f"{self.label(arm)}{lost}"

    def shows(self, arm: Arm) -> bool:
        """Whether the arm is to be drawn."""
        return not self.only or any(_is(arm, name) for name in self.only)

    def shows_named(self, optimizer: str, arms: Iterable[Arm]) -> bool:
        """Whether an optimizer is to be drawn, of which there may be no arm among these."""
        return not self.only or any(self.shows(arm) for arm in arms if arm.optimizer == optimizer)

    def checked(self, arms: Sequence[Arm]) -> View:
        """The same view. Raises ValueError for an arm or a name that is not there."""
        for option, wanted in (("arms", self.only), ("names", self.names)):
            for name in wanted:
                if not any(_is(arm, name) for arm in arms):
                    there = ", ".join(sorted({arm.optimizer for arm in arms}))
                    raise ValueError(f"{option}={name}: no such optimizer or label; there are {there}")
        return self

    def measured(self, arms: Sequence[Arm]) -> list[Arm]:
        """The arms with the wanted metric as theirs; those without it are left out.

        Raises ValueError where none has it, and where nothing says whether less or more of it is better.
        """
        if not self.metric:
            return list(arms)
        metric, _, way = self.metric.partition(":")
        having = [arm for arm in arms if any(f"val/{metric}" in _metrics(arm, index) for index in range(len(arm.over)))]
        if not having:
            keys = {key for arm in arms for index in range(len(arm.over)) for key in _metrics(arm, index)}
            there = ", ".join(sorted(key.removeprefix("val/") for key in keys if key.startswith("val/")))
            raise ValueError(f"metric={metric}: no run has it for validation; there are {there}")
        directions: dict[str, Literal["min", "max"]] = {"min": "min", "max": "max"}
        known: dict[str, Literal["min", "max"]] = {"loss": "min", **{arm.metric: arm.direction for arm in arms}}
        direction = directions.get(way) if way else known.get(metric)
        if direction is None:
            raise ValueError(f"metric={self.metric}: say which way is better, {metric}:min or {metric}:max")
        return [_with(arm, metric, direction) for arm in having]


def _metrics(arm: Arm, index: int) -> Mapping[str, float]:
    summary = arm.over[index].summary
    return summary["metrics"] if summary else {}


def _with(arm: Arm, metric: str, direction: Literal["min", "max"]) -> Arm:
    parts = {number: replace(part, metric=metric, direction=direction) for number, part in arm.parts.items()}
    return replace(arm, metric=metric, direction=direction, parts=parts)


def _is(arm: Arm, name: str) -> bool:
    return name in (arm.optimizer, arm.label)


DEFAULT = View()


def looks_of(arms: Iterable[Arm]) -> dict[str, Look]:
    """The look of each arm, by its label."""
    return looks((arm.optimizer, arm.label) for arm in arms)


def names_of(text: str) -> dict[str, str]:
    """`vradam=Ours,adamw lr=0.1=AdamW at 0.1` as a mapping. Raises ValueError for a part that gives no name."""
    found = {}
    for part in filter(None, text.split(",")):
        old, equals, new = part.rpartition("=")
        if not (equals and old.strip() and new.strip()):
            raise ValueError(f"names={part}: must be old=new, an optimizer or label and what to write")
        found[old.strip()] = new.strip()
    return found
