"""The smallest effect that matters: declared before looking, per task, on a scale that means something."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

Scale = Literal["share", "metric", "log", "error"]

FORMS = (
    "a share of B's mean (1%), a number of the metric (0.002), "
    "log:0.02 (log ratio of losses) or error:5% (share of B's errors)"
)


@dataclass(frozen=True)
class Smallest:
    """The smallest difference that matters, on one of four scales, and where tasks have their own."""

    amount: float = 0.01
    scale: Scale = "share"
    declared: bool = False
    """Whether somebody chose it; 1 % of B's mean is what nobody chose."""
    tasks: dict[str, Smallest] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Smallest:
        """`1%`, `0.002`, `log:0.02`, `error:5%`, or some of them by task: `digits=error:5%,pydoc=log:0.01,1%`.

        Raises ValueError for anything else, and for less than 0.
        """
        own, tasks = None, {}
        for part in text.split(","):
            task, equals, amount = part.rpartition("=")
            if equals:
                tasks[task] = cls._one(amount, text)
            elif own is None:
                own = cls._one(part, text)
            else:
                raise ValueError(f"smallest-effect={text}: has two amounts for the same tasks")
        return replace(own or cls(), tasks=tasks)

    @classmethod
    def _one(cls, part: str, text: str) -> Smallest:
        kind, colon, rest = part.rpartition(":")
        percent = rest.endswith("%")
        try:
            amount = float(rest.removesuffix("%")) / (100 if percent else 1)
        except ValueError:
            amount = math.nan
        scales: dict[str, Scale] = {"": "share" if percent else "metric", "log": "log", "error": "error"}
        if not 0 <= amount < math.inf or kind not in scales or (colon and not kind):
            raise ValueError(f"smallest-effect={text}: must be {FORMS}")
        return cls(amount, scales[kind], True)

    def on(self, task: str) -> Smallest:
        """That of a task."""
        return self.tasks.get(task, self)

    def of(self, mean: float) -> float:
        """The smallest difference in the metric's unit, given B's mean.

        A log ratio of losses l is |B| (e^l - 1); a share of the errors is that of 1 - B, for metrics that count hits
        (accuracy): nan where B is not between 0 and 1.
        """
        if self.scale == "share":
            return self.amount * abs(mean)
        if self.scale == "log":
            return math.expm1(self.amount) * abs(mean)
        if self.scale == "error":
            return self.amount * (1 - mean) if 0 <= mean <= 1 else math.nan
        return self.amount

    def __str__(self) -> str:
        percent = f"{100 * self.amount:.4g} %"
        shown = {
            "share": percent,
            "metric": f"{self.amount:.4g}",
            "log": f"{self.amount:.4g} of log ratio",
            "error": f"{percent} of B's error rate",
        }[self.scale]
        return ", ".join([shown, *(f"{task}: {own}" for task, own in self.tasks.items())])

    @property
    def told(self) -> str:
        """What a note says of it, and whether it was declared."""
        of = " of B's mean" if self.scale == "share" else ""
        how = "as declared" if self.declared or self.tasks else "the default, which nobody declared for this task"
        first, *others = str(self).split(", ")
        return f"{', '.join([first + of, *others])} ({how})"
