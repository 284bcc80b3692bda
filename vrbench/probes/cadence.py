"""When a probe measures: every so many steps, and within a share of the run's time."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from collections.abc import Iterator
from typing import Any


class Cadence:
    """When to measure: every N steps, under a share of the time. The first is never held back: its cost is unknown.

    The time of the steps is their median times their number, so that evaluation and checkpoints between them do not
    count; the cost of a measurement is the highest of the last few, with all that follows from it.
    """

    def __init__(self, every: int | None, max_share: float | None) -> None:
        self.every = every
        self.max_share = max_share
        self.steps = 0
        self.spent = 0.0
        self._costs: deque[float] = deque(maxlen=4)
        self._spent_before = 0.0
        self._durations: deque[float] = deque(maxlen=101)
        self._since: tuple[float, float] | None = None

    def is_due(self, step: int, is_last: bool) -> bool:
        """Whether to measure after this step. Asked once a step, before it."""
        now = time.perf_counter()
        if self._since is not None:
            self._durations.append(max(0.0, now - self._since[0] - (self.spent - self._since[1])))
        self._since = now, self.spent
        self.steps += 1
        if self.every is not None and step % self.every != 0 and not is_last:
            return False
        cost = max([*self._costs, self.spent - self._spent_before])
        after = self.spent + cost
        training = statistics.median(self._durations) * self.steps if self._durations else 0.0
        if self.max_share is not None and self.spent > 0 and after > self.max_share * (after + training):
            return False
        if self.spent > 0:
            self._costs.append(self.spent - self._spent_before)
        self._spent_before = self.spent
        return True

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Book the time inside the block."""
        began = time.perf_counter()
        yield
        self.spent += time.perf_counter() - began

    def state_dict(self) -> dict[str, Any]:
        """What was spent, and on how many steps."""
        return {
            "steps": self.steps,
            "spent": self.spent,
            "spent_before": self._spent_before,
            "costs": list(self._costs),
            "durations": list(self._durations),
        }

    def forget_costs(self) -> None:
        """What a measurement costs is not known any more; what all of them have cost stays spent."""
        self._costs.clear()
        self._spent_before = self.spent

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.spent, self._spent_before = state["steps"], state["spent"], state["spent_before"]
        self._costs.extend(state["costs"])
        self._durations.extend(state["durations"])
