"""How figures write an optimizer, and the number of its look: the same in every study, whatever else is shown.

An optimizer of one's own needs no entry anywhere: it is written as its class is, and its look is made from its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import yaml


@lru_cache
def _given() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(files("vrbench.report").joinpath("names.yaml").read_text("utf-8"))
    return content


def display(optimizer: str, settings: Mapping[str, Any]) -> str:
    """The name of an optimizer in a figure: `VRAdam` for `vradam`, `SGD + Nesterov` for `sgd` with `nesterov`.

    `settings` are the leaves of a run's config by key written with dots. First what names.yaml says; then the class
    (`optimizer._target_`), with the YAML's name in brackets where that is another word; then the YAML's name, as for a
    function.
    """
    given = _given()
    if (own := given["where"].get(optimizer)) and all(
        settings.get(f"optimizer.{key}") == value for key, value in own["settings"].items()
    ):
        return str(own["name"])
    if optimizer in given["names"]:
        return str(given["names"][optimizer])
    made = str(settings.get("optimizer._target_", "")).rpartition(".")[2]
    if not made[:1].isupper():
        return optimizer
    return made if _letters(made) == _letters(optimizer) else f"{made} ({optimizer})"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def number_of(optimizer: str) -> tuple[bool, int]:
    """Whether an optimizer's look is a listed one, and the look's number: its place in the list, else a hash."""
    listed: list[str] = _given()["looks"]
    if optimizer in listed:
        return True, listed.index(optimizer)
    return False, int.from_bytes(blake2b(optimizer.encode(), digest_size=8).digest(), "big")
