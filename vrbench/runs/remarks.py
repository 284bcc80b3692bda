"""What there is to tell the user of a run that is over, beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vrbench.runs.identity import leaves

_WORTH_SAYING = 5.0
"""Seconds of evaluation below which nobody minds them."""
_SAMPLED = ("task.eval_examples", "task.eval_walks", "task.quality.samples")
"""What tasks that evaluate on a number of their own call it: there the splits' sizes decide no cost."""
_SIZES = ("task.data.val_size", "task.data.test_size")


def costly_evaluation(seconds: Mapping[str, float], config: Mapping[str, Any]) -> str | None:
    """What to tell the user of a run that was over half evaluation, with the keys of its config that make it cheaper.

    `seconds` is that of a summary (`train`, `eval`, `probe`), `config` the run's. None where there is nothing to say.
    """
    share = seconds["eval"] / max(sum(seconds.values()), 1e-9)
    if share <= 0.5 or seconds["eval"] < _WORTH_SAYING:
        return None
    there = {".".join(path) for path, _ in leaves(config)}
    keys = [key for key in _SAMPLED if key in there] or [key for key in _SIZES if key in there]
    if not config["trainer"]["evaluate_test"]:
        keys = [key for key in keys if key != "task.data.test_size"]
    remedies = ", ".join(f"{key}=…" for key in keys)
    either = f"{remedies} or " if remedies else ""
    return f"evaluation took {share:.0%} of its time; {either}trainer.eval_every=… makes it cheaper"
