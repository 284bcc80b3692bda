"""Search spaces: what a YAML says may vary, the grid over it, and the edges that a best value may lie on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from vrbench.tuning.confirmation import RANGE_KEYS, flat_space, literal

EDGE = 0.01
"""A best value within this share of its range (of the logarithms, where the range is logarithmic) is on its edge."""

Space = dict[str, BaseDistribution]


def read_space(node: Mapping[str, Any]) -> Space:
    """The distributions of a space as the YAML states it: `{"optimizer": {"lr": {"low": …, "high": …, "log": true}}}`.

    A leaf is a range, `{low, high}` with `log: true` or `int: true`, or a list of choices; choices are kept as the text
    of a Hydra override. A config group takes a list of its YAMLs, or `choice` with one beside keys of theirs. Raises
    ValueError (with the key) for anything else and for an empty space.
    """
    space = dict(_leaves(node))
    if not space:
        raise ValueError("space={}: names no parameter to search; give hydra.sweeper.space.<key>={low: …, high: …}")
    return space


def default_space(lr: Any, marked: Any = None) -> dict[str, Any]:
    """The space of an optimizer that has no YAML of its own under conf/sweep/space, as `read_space` takes it.

    `marked` is what the optimizer's YAML marks under `_search_`: `{"lr": {"low": …, "high": …, "log": true}}`. Without
    it the rate alone is searched, over two decades on either side of the decade that `lr` lies in: 1e-6 to 1e-2 for
    3e-4. Raises ValueError for an `lr` that has no decade, and for a mark that is no mapping.
    """
    if marked is not None:
        if not isinstance(marked, Mapping):
            raise ValueError(f"_search_={marked}: must say what to search, <argument>: {{low: …, high: …}} or a list")
        return {"optimizer": dict(marked)}
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 < lr < math.inf:
        raise ValueError(f"lr={lr}: no range can be laid around it; give one under _search_ in the optimizer's YAML")
    decade = Decimal(repr(lr)).adjusted()
    return {"optimizer": {"lr": {"low": float(f"1e{decade - 2}"), "high": float(f"1e{decade + 2}"), "log": True}}}


def merged(space: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A space with changes: keys of a range or a group one by one, anything else as a whole."""
    found = dict(space)
    for key, value in changes.items():
        there = found.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        found[key] = merged(there, value) if both else value  # type: ignore[arg-type]
    return found


def check_key(key: str, config: Mapping[str, Any]) -> None:
    """Raises ValueError where the config has no such key, written with dots."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            there = f"; there are {', '.join(map(str, node))}" if isinstance(node, Mapping) else ""
            raise ValueError(f"space.{key}=…: the config has no such key{there}")
        node = node[part]


def _leaves(space: Mapping[str, Any]) -> Iterator[tuple[str, BaseDistribution]]:
    for key, node in flat_space(space).items():
        try:
            yield key, _distribution(node)
        except (TypeError, ValueError, KeyError) as error:
            wanted = "must be a list of choices or a range {low, high, log: …, int: …}"
            raise ValueError(f"space.{key}={node}: {wanted} ({error})") from error


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
