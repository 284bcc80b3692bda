"""What makes two runs one: the only table of what decides a run's numbers, and the ids made from it.

A run's id is a hash of its resolved config without the keys below. Numbers are typed before that (`runs.source`), a
local file or folder that any value names counts by its content (`runs.content`), a data set of a hub by its name and
the keys beside it. docs/identity.md says it to users.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrbench.runs.added import without_added
from vrbench.runs.content import PYDOC, content_hash, pydoc_hash
from vrbench.runs.renamed import today

DIGEST_BYTES = 8
"""An id has 64 bits: among 100,000 runs two of the same are expected with probability 3e-10."""

NO_NUMBERS = (
    ("study",),
    ("results_dir",),
    ("force",),
    ("logger",),
    ("probe",),
    ("trainer", "device"),
    ("trainer", "threads"),
    ("trainer", "parallel"),
    ("trainer", "checkpoint_seconds"),
    ("trainer", "log_every"),
    ("trainer", "render_every"),
    ("trainer", "evaluate_test"),
    ("task", "eval_batch_size"),
)
"""What decides no number of a run: where it is written, shown and looked at, and the hardware that it happens to run
on. A task's `eval_batch_size` may decide how fast it evaluates and nothing else. `trainer.eval_every` is not among
them: it decides which weights are best."""

FOLLOWS = "${seed}"
"""A value written like this is the run's seed: runs that differ in it alone are of one arm."""

_INSIDE = re.compile(r"(^|_)(name|split|column|field|pattern)$")
"""Keys whose values name something inside a data set: a folder that happens to have that name does not count."""
_PLACE = re.compile(r"(path|file|folder|dir|root)s?$")
_PUNCTUATION = re.compile(r"[./~\\]*")

Key = tuple[str, ...]


@dataclass(frozen=True)
class Identity:
    """The ids of a run, and what beside the config they were made from."""

    id: str
    """Hash of everything that decides the run's numbers, seed included: 16 hex digits."""
    arm: str
    """The same without the seed and what follows it: runs of one arm are repetitions."""
    data: dict[str, str] = field(default_factory=dict)
    """Content hashes of local files and folders, by the config key that names them."""


def identify(
    config: Mapping[str, Any], *, follows_seed: Sequence[str] = (), data: Mapping[str, str] | None = None
) -> Identity:
    """The identity of a resolved config; keys in `follows_seed` (written with dots) hold the seed.

    `data` are the content hashes where they are known; without it the files are read. Raises OSError for local data
    that cannot be read.
    """
    data = local_data(config) if data is None else data
    decisive = relevant(config, data)
    shared = {key: FOLLOWS if key in follows_seed else value for key, value in decisive.items() if key != "seed"}
    return Identity(_hash(decisive), _hash(shared), dict(data))


def relevant(config: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    """The leaves that decide a run's numbers, by key written with dots; data by their content.

    Keys that have been added since and change nothing (`runs.added`) are not among them.
    """
    decisive = without_added({".".join(path): value for path, value in leaves(config)})
    return {key: {"content": data[key]} if key in data else value for key, value in decisive.items()}


def leaves(node: Any, at: Key = ()) -> Iterator[tuple[Key, Any]]:
    """(key, value) of everything in a config that decides numbers; empty groups and lists are leaves too."""
    if at in NO_NUMBERS:
        return
    if isinstance(node, Mapping) and node:
        for key in sorted(node, key=str):
            yield from leaves(node[key], (*at, str(key)))
    elif isinstance(node, (list, tuple)) and node:
        for number, value in enumerate(node):
            yield from leaves(value, (*at, str(number)))
    elif at:
        yield at, node


def decides(key: str) -> bool:
    """Whether a config key, written with dots, decides numbers."""
    path = tuple(key.split("."))
    return not any(path[: len(name)] == name for name in NO_NUMBERS)


def local_data(config: Mapping[str, Any]) -> dict[str, str]:
    """The content hash of every local file, folder or pattern of files that a value of the config names.

    The text that ships with Python is such data too, under the key of the target that reads it.
    """
    found: dict[str, str] = {}
    for path, value in leaves(config):
        if isinstance(value, str) and (places := _places(path, value)):
            hashes = [content_hash(place) for place in places]
            found[".".join(path)] = hashes[0] if len(hashes) == 1 else _hash(sorted(hashes))
        elif path[-1] == "_target_" and isinstance(value, str) and today(value) == PYDOC and (text := pydoc_hash()):
            found[".".join(path)] = text
    return found


def _places(key: Key, value: str) -> list[Path]:
    """The files and folders that a value names, if it is such a name."""
    last = next(part for part in reversed(key) if not part.isdigit())
    bare = not re.search(r"[/\\]|^[.~]", value)
    if last == "_target_" or "\0" in value or "\n" in value or (bare and _INSIDE.search(last)):
        return []
    if _PUNCTUATION.fullmatch(value) and not (value and _PLACE.search(last)):
        return []  # a separator, say, and not the working directory
    path = Path(value.removeprefix("file://")).expanduser()
    try:
        if path.exists():
            return [path]
    except OSError:  # too long for a name
        return []
    if not bare and glob.has_magic(value):
        return [Path(match) for match in sorted(glob.glob(os.path.expanduser(value), recursive=True))]
    return []


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """`optimizer.lr: 0.1 there, 0.01 asked for`, for each key at which two answers of `relevant` differ."""
    lines = []
    for key in sorted(stored.keys() | wanted.keys()):
        there, asked = stored.get(key, "nothing"), wanted.get(key, "nothing")
        if _text(there) != _text(asked):
            lines.append(f"{key}: {_short(there)} there, {_short(asked)} asked for")
    return lines


def _short(value: Any) -> str:
    return f"data {value['content'][:8]}…" if isinstance(value, Mapping) and "content" in value else str(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _hash(value: Any) -> str:
    return hashlib.blake2b(_text(value).encode(), digest_size=DIGEST_BYTES).hexdigest()
