"""How a run's wall-clock time is booked: training, evaluation, probes and records each have a section of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Literal

Section = Literal["train", "eval", "probe", "records"]


class Clock:
    """Wall-clock seconds by section; exactly one section runs at any time."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        """Go on from these seconds; a fresh clock starts all sections at 0."""
        fresh = {"train": 0.0, "eval": 0.0, "probe": 0.0, "records": 0.0}
        self.seconds = fresh if seconds is None else dict(seconds)
        self._section: Section = "train"
        self._since = time.perf_counter()
        self.begin_lap(0)

    @contextlib.contextmanager
    def section(self, name: Section) -> Iterator[None]:
        """Book the time inside the block under `name` instead of what ran before."""
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def switch(self, name: Section) -> Section:
        """Book the time so far, and run `name` from here; returns the section left."""
        now = time.perf_counter()
        left = self._section
        self.seconds[left] += now - self._since
        self._since, self._section = now, name
        return left

    def begin_lap(self, step: int) -> None:
        """Count steps and their seconds of training from here, at this step."""
        self._lap = step, self.seconds["train"]

    def end_lap(self, step: int, units_per_step: Mapping[str, float]) -> dict[str, float]:
        """`time/` keys for the steps since the last lap: steps and units per second of training, the probes' share."""
        seconds = self.seconds
        steps, since = step - self._lap[0], seconds["train"] - self._lap[1]
        times = {"time/probe_share": seconds["probe"] / max(seconds["train"] + seconds["probe"], 1e-9)}
        if steps > 0 and since > 0:
            times["time/steps_per_s"] = steps / since
            for unit, count in units_per_step.items():
                times[f"time/{unit}_per_s"] = steps / since * count
        self.begin_lap(step)
        return times
