"""How a run's wall-clock time is booked: training, evaluation, probes and records each have a section of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Section = Literal["train", "eval", "probe", "records"]

_WORTH_SAYING = 5.0
"""Seconds of evaluation below which nobody minds them."""
_SAMPLED = ("task.eval_examples", "task.eval_walks", "task.quality.samples")
"""What tasks that evaluate on a number of their own call it: there the splits' sizes decide no cost."""
_SIZES = ("task.data.val_size", "task.data.test_size")


def dear_evaluation(seconds: Mapping[str, float], config: Mapping[str, Any]) -> str | None:
    """What to tell the user of a run that was over half evaluation, with the keys of its config that make it cheaper.

    `seconds` is that of a summary (`train`, `eval`, `probe`), `config` the run's. None where there is nothing to say.
    """
    share = seconds["eval"] / max(sum(seconds.values()), 1e-9)
    if share <= 0.5 or seconds["eval"] < _WORTH_SAYING:
        return None
    keys = [key for key in _SAMPLED if _has(config, key)] or [key for key in _SIZES if _has(config, key)]
    if not config["trainer"]["evaluate_test"]:
        keys = [key for key in keys if key != "task.data.test_size"]
    remedies = ", ".join(f"{key}=…" for key in keys)
    either = f"{remedies} or " if remedies else ""
    return f"evaluation took {share:.0%} of this run; {either}trainer.eval_every=… makes it cheaper"


def _has(config: Mapping[str, Any], key: str) -> bool:
    """Whether a config has a key, written with dots."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


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
