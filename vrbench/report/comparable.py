"""What may be compared: two arms that differ in what is compared, and in nothing else.

Of everything that decides numbers (`vrbench.runs.identity`) these may differ:

- the optimizer, its choice and its settings;
- keys that were searched for either arm (its manifest's `tuned.space`);
- the schedule, where it is what is compared: the optimizers agree but for searched keys, and nothing else differs;
- keys that the user allows by name. A name covers all that lies below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vrbench.report.arms import Arm
from vrbench.report.leaves import CHOICES, canonical, covers, plain

METRIC = "metric"


@dataclass(frozen=True)
class Difference:
    """A key in which two arms differ, and both values as they are shown."""

    key: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.key}: {self.a} against {self.b}"


def obstacles(a: Arm, b: Arm, allow: Sequence[str] = ()) -> list[Difference]:
    """What two arms of one task and model differ in and must not; empty where they may be compared.

    Of arms with several tunings, what any two replicates differ in that are paired.
    """
    if a.parts or b.parts:
        return list(dict.fromkeys(one for x, y in _twins(a, b) for one in obstacles(x, y, allow)))
    if (a.metric, a.direction) != (b.metric, b.direction):
        return [Difference(METRIC, f"{a.metric} ({a.direction})", f"{b.metric} ({b.direction})")]
    open_keys = [key for key in _differing(a, b) if not _any(allow, key) and not _any(_searched(a, b), key)]
    own = [key for key in open_keys if covers("optimizer", key)]
    rest = [key for key in open_keys if not covers("optimizer", key)]
    if not own and all(covers("schedule", key) for key in rest):
        return []
    return _differences(a, b, rest)


def let_differ(a: Arm, b: Arm, allow: Sequence[str]) -> list[Difference]:
    """What two arms differ in because the user allows it."""
    if a.parts or b.parts:
        return list(dict.fromkeys(one for x, y in _twins(a, b) for one in let_differ(x, y, allow)))
    keys = [key for key in _differing(a, b) if _any(allow, key) and not covers("optimizer", key)]
    return _differences(a, b, [key for key in keys if not _any(_searched(a, b), key)])


def _twins(a: Arm, b: Arm) -> list[tuple[Arm, Arm]]:
    """The arms whose settings must agree: replicate by replicate, or each replicate and the other side's only one."""
    if a.parts and b.parts:
        return [(a.parts[number], b.parts[number]) for number in a.parts if number in b.parts]
    return [(part, b) for part in a.parts.values()] or [(a, part) for part in b.parts.values()]


def refuse(couples: Iterable[tuple[Arm, Arm]], allow: Sequence[str]) -> None:
    """Raises ValueError, in one line with keys and values, where two arms may not be compared."""
    lines, keys = [], dict[str, None]()
    for a, b in couples:
        if found := obstacles(a, b, allow):
            lines.append(f"{a.task} {a.model}: {'; '.join(map(str, found))}")
            keys.update(dict.fromkeys(one.key for one in found))
    if lines:
        names = ",".join([*allow, *(key for key in keys if key != METRIC)])
        way = f"; --allow {names} compares them all the same" if METRIC not in keys else ""
        raise ValueError(f"{'; '.join(lines)}{way}")


def check_names(allow: Sequence[str], arms: Iterable[Arm]) -> None:
    """Raises ValueError for an allowed name that covers no key of any arm."""
    keys = {key for arm in arms for key in arm.identity}
    for name in allow:
        if not any(covers(name, key) for key in keys):
            raise ValueError(f"allow={name}: no run has such a key")


def _differing(a: Arm, b: Arm) -> list[str]:
    """The leaves that differ, sorted; choices are told from them."""
    keys = sorted((a.identity.keys() | b.identity.keys()) - set(CHOICES))
    return [key for key in keys if _value(a, key, canonical) != _value(b, key, canonical)]


def _searched(a: Arm, b: Arm) -> list[str]:
    return [key for arm in (a, b) for record in arm.tuned for key in record["space"]]


def _any(names: Iterable[str], key: str) -> bool:
    return any(covers(name, key) for name in names)


def _differences(a: Arm, b: Arm, keys: Iterable[str]) -> list[Difference]:
    """One difference a leaf; one a group where another YAML was chosen for it."""
    found: dict[str, Difference] = {}
    for key in keys:
        group = key.partition(".")[0]
        chosen = group in CHOICES and a.identity.get(group) != b.identity.get(group)
        name = group if chosen else key
        found[name] = Difference(name, _value(a, name, _exact), _value(b, name, _exact))
    return list(found.values())


def _value(arm: Arm, key: str, tell: Callable[[Any], str]) -> str:
    return tell(arm.identity[key]) if key in arm.identity else "nothing"


def _exact(value: Any) -> str:
    return repr(value) if isinstance(value, float) else plain(value)
