"""Keys that parts have got since runs were first recorded: where they change nothing, a run is the run it was.

A new key in a part's YAML would give every run another id, and two records of one configuration, with the key and
without it, could not be compared. So a key of this table is left out where its value does what was done before it was
there. A key that is not in the table always counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vrbench.runs.renamed import today

_OF_TEXT = ("train_size", "val_size", "test_size")
ADDED = {
    "vrbench.data.images.digits": ("val_size", "test_size"),
    "vrbench.data.images.hub_images": ("val_size",),
    "vrbench.data.images.image_folder": ("val_size", "test_size"),
    "vrbench.data.text.files": _OF_TEXT,
    "vrbench.data.text.hub": _OF_TEXT,
    "vrbench.data.text.prompt_completion": _OF_TEXT,
    "vrbench.data.text.pydoc": _OF_TEXT,
}
"""Target → the keys that it has got; null leaves a run what it was, and so does `all`."""

_EVAL_PRECISION, _PRECISION = "trainer.eval_precision", "trainer.precision"
"""Evaluation was in float32 before it could be said, whatever precision training had."""


def without_added(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a config, by key written with dots, less the added ones that change nothing.

    A `val_size` of null is not such a one beside a `train_size`: validation was whole then, and keeps that share now.
    """
    idle = {_EVAL_PRECISION} if (leaves.get(_EVAL_PRECISION) or leaves.get(_PRECISION)) == "float32" else set()
    for key, target in leaves.items():
        part, _, last = key.rpartition(".")
        for name in ADDED.get(today(target), ()) if last == "_target_" and isinstance(target, str) else ():
            added = f"{part}.{name}"
            follows = name == "val_size" and leaves.get(f"{part}.train_size") is not None
            if leaves.get(added) == "all" or (leaves.get(added) is None and not follows):
                idle.add(added)
    return {key: value for key, value in leaves.items() if key not in idle}
