"""Search spaces: what a YAML says may vary, the grid over it, and the edges that a best value may lie on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from vrbench.confirmation import RANGE_KEYS, literal

EDGE = 0.01
"""A best value within this share of its range (of the logarithms, where the range is logarithmic) is on its edge."""

Space = dict[str, BaseDistribution]


def read_space(node: Mapping[str, Any]) -> Space:
    """The distributions of a space as the YAML states it: `{"optimizer": {"lr": {"low": …, "high": …, "log": true}}}`.

    A leaf is a range, `{low, high}` with `log: true` or `int: true`, or a list of choices; choices are kept as the text
    of a Hydra override. Raises ValueError (with the key) for anything else and for an empty space.
    """
    space = dict(_leaves(node, ""))
    if not space:
        raise ValueError("space={}: names no parameter to search; give hydra.sweeper.space.<key>={low: …, high: …}")
    return space


def check_key(key: str, config: Mapping[str, Any]) -> None:
    """Raises ValueError where the config has no such key, written with dots."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            there = f"; there are {', '.join(map(str, node))}" if isinstance(node, Mapping) else ""
            raise ValueError(f"space.{key}=…: the config has no such key{there}")
        node = node[part]


def _leaves(node: Any, key: str) -> Iterator[tuple[str, BaseDistribution]]:
    if isinstance(node, Mapping) and not (node.keys() & RANGE_KEYS):
        for name, child in node.items():
            if child is not None:
                yield from _leaves(child, f"{key}.{name}" if key else str(name))
        return
    try:
        yield key, _distribution(node)
    except (TypeError, ValueError, KeyError) as error:
        message = f"space.{key}={node}: must be a list of choices or a range {{low, high, log: …, int: …}} ({error})"
        raise ValueError(message) from error


def _distribution(node: Any) -> BaseDistribution:
    if isinstance(node, (list, tuple)):
        return CategoricalDistribution([literal(choice) for choice in node])
    if not isinstance(node, Mapping) or node.keys() - RANGE_KEYS:
        raise ValueError("neither of them")
    low, high, log = node["low"], node["high"], bool(node.get("log", False))
    if node.get("int", False):
        if int(low) != low or int(high) != high:
            raise ValueError("int: true wants whole numbers")
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def grid(space: Space, points: int) -> list[dict[str, Any]]:
    """Every combination of the choices and of `points` values a range, evenly spaced (in the logarithm where `log`)."""
    axes = [[(key, value) for value in _axis(distribution, points)] for key, distribution in space.items()]
    return [dict(combination) for combination in itertools.product(*axes)]


def _axis(distribution: BaseDistribution, points: int) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = distribution.low, distribution.high
    shares = [step / (points - 1) for step in range(points)]
    if distribution.log:
        values = [low * (high / low) ** share for share in shares]
    else:
        values = [low + (high - low) * share for share in shares]
    values[-1] = high
    if isinstance(distribution, IntDistribution):
        return sorted({round(value) for value in values})
    return values


def edges(params: Mapping[str, Any], space: Space) -> list[str]:
    """One line for each parameter whose value lies on the edge of its range: the optimum may be outside."""
    lines = []
    for key, distribution in space.items():
        if not isinstance(distribution, (FloatDistribution, IntDistribution)) or distribution.single():
            continue
        low, high, value = float(distribution.low), float(distribution.high), float(params[key])
        share = math.log(value / low) / math.log(high / low) if distribution.log else (value - low) / (high - low)
        if share <= EDGE or share >= 1 - EDGE:
            side = "lower" if share <= EDGE else "upper"
            lines.append(f"{key}={params[key]:.4g} lies on the {side} edge of [{low:g}, {high:g}]: widen the range")
    return lines
