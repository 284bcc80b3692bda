"""The leaves of a configuration that decide its numbers, as reports compare and show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vrbench.runs.added import without_added
from vrbench.runs.identity import FOLLOWS, decides
from vrbench.runs.index import Row, config_of
from vrbench.runs.renamed import today

CHOICES = ("task", "model", "optimizer", "schedule", "trainer")
"""Config groups that decide numbers: which YAML was chosen stands for the leaves that come with it."""


def identity_of(row: Row) -> dict[str, Any]:
    """What decides a run's numbers apart from its seed: leaves by key written with dots, and the choices.

    Local data count by their content, `{"content": hash}`; what follows the seed is `${seed}`; parts that have been
    renamed since have their present names. Records of schema 1 do not know their data's content: a path counts by its
    last part.
    """
    found = without_added({key: value for key, value in config_of(row).items() if decides(key)})
    if row["schema"] == 1:
        paths = {
            key: Path(value).name for key, value in found.items() if key.endswith(".path") and isinstance(value, str)
        }
        found |= paths
    found |= {key: today(value) for key, value in found.items() if key.endswith("._target_")}
    for key, content in row.get("data", {}).items():
        _put(found, key, {"content": content})
    for key in row.get("follows_seed", ()):
        _put(found, key, FOLLOWS)
    return found | {group: row[group] for group in CHOICES if group in row}


def _put(leaves: dict[str, Any], key: str, value: Any) -> None:
    """Set what a key names, inside a list that is a leaf too (`task.data.files.0`)."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in leaves:
            leaves[name] = _with(leaves[name], parts[length:], value)
            return


def _with(node: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(node, Mapping):
        return {key: _with(item, path[1:], value) if str(key) == path[0] else item for key, item in node.items()}
    if isinstance(node, list):
        return [_with(item, path[1:], value) if str(place) == path[0] else item for place, item in enumerate(node)]
    return node


def canonical(value: Any) -> str:
    """The same text for values that decide the same: 1 and 1.0 are one number, 1 and true are not."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return repr(value)
    if isinstance(value, int):
        return repr(float(value)) if abs(value) < 2**53 else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {canonical(value[key])}" for key in sorted(value, key=str)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(canonical, value)) + "]"
    return repr(value)


def plain(value: Any) -> str:
    """A value in a few letters: numbers to six digits, data by the beginning of their hash."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping) and "content" in value:
        return f"data:{str(value['content'])[:8]}"
    return str(value)


def covers(name: str, key: str) -> bool:
    """Whether a key is the named one or lies below it: `schedule` covers `schedule.warmup_epochs`."""
    return key == name or key.startswith(f"{name}.")
