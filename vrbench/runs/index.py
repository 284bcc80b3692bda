"""Find runs among many: one flat row a run, kept in `<root>/index.jsonl` and brought up to date at each reading.

The run folders stay the truth. A row is taken from the index while its run's manifest and summary have the times and
sizes that they had when it was written; other rows are read anew, rows of vanished folders are dropped, and an index
that is missing, torn or of another version is made afresh.

    vrbench index results/runs optimizer=vradam status=finished
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from vrbench import terminal
from vrbench.runs.records import Run, write_whole

VERSION = 2
FILE = "index.jsonl"

_KEYS = re.compile(r"^(?=[^\s-])", re.MULTILINE)
"""Where a key of the outermost mapping begins in YAML as PyYAML writes it."""
_NUMBER = re.compile(r"(\w+): (-?(?:0|[1-9]\d*))(\.\d+(?:e[-+]\d+)?)?\n?")
"""A number under a plain key: what runs of a search differ in, and need no YAML to be read."""

Row = dict[str, Any]
"""`directory` (relative to the root), `id`, `arm`, `name`, `study`, `seed`, `schema`, `status`; the chosen YAMLs
(`task`, …); the config's leaves (`optimizer.lr`); the final metrics (`val/loss`) and the best ones (`best/val/loss`);
`test_read` once the run is over. Where the manifest has them: `follows_seed`, `data` and `code_changes` as they are
there, and of `code` and `tuned`, which many runs have in common, the `digest`. Schema 1 has none of these."""


def read_index(root: Path) -> list[Row]:
    """A row for every run at or below `root`, sorted by directory; the index file is brought up to date on the way.

    Where the root cannot be written, the rows are right all the same. Raises FileNotFoundError where it is missing, and
    ValueError for a run folder of an unknown schema version.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    known = _load(root / FILE)
    rows: list[Row] = []
    changed = False
    for folder, stamp in _folders(str(root)):
        directory = os.path.relpath(folder, root)
        row = known.pop(directory, None)
        if row is None or row["stamp"] != stamp:
            row = {"directory": directory, "stamp": stamp, **read_row(Path(folder))}
            changed = True
        rows.append(row)
    rows.sort(key=lambda row: str(row["directory"]))
    if changed or known:
        _save(root / FILE, rows)
    for row in rows:
        del row["stamp"]
    return rows


def select(rows: Iterable[Row], wanted: Mapping[str, Any]) -> list[Row]:
    """Rows in which every key of `wanted` has the value: `{"optimizer": "vradam", "optimizer.lr": 0.001}`.

    Raises ValueError for a key that no row has.
    """
    rows = list(rows)
    for key in wanted:
        if rows and not any(key in row for row in rows):
            raise ValueError(f"{key}: no run has such a key")
    return [row for row in rows if all(key in row and row[key] == value for key, value in wanted.items())]


def _folders(root: str) -> Iterator[tuple[str, list[int]]]:
    """Run folders and the stamp of each: times and sizes of what its row is made of."""
    stack = [root]
    while stack:
        folder = stack.pop()
        with os.scandir(folder) as found:
            entries = {entry.name: entry for entry in found}
        if "manifest.json" not in entries:
            stack.extend(entry.path for entry in entries.values() if entry.is_dir(follow_symlinks=False))
            continue
        stamp = []
        for name in ("manifest.json", "summary.json"):
            state = entries[name].stat() if name in entries else None
            stamp += [state.st_mtime_ns, state.st_size] if state else [0, 0]
        yield folder, stamp


def read_row(folder: Path) -> Row:
    """The row of one run folder, without `directory`; no index is read. Raises ValueError for a bad record."""
    run = Run(folder)
    try:
        manifest, summary = run.manifest, run.summary or {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder}: manifest.json or summary.json is not JSON ({error})") from error
    row: Row = _config((folder / "config.yaml").read_text(encoding="utf-8"))
    row |= {key: manifest[key] for key in ("id", "arm", "name", "study", "seed", "schema")}
    row |= {**manifest["choices"], "status": run.status, "steps": summary.get("steps")}
    row |= {key: manifest[key] for key in ("follows_seed", "data", "code_changes") if manifest.get(key)}
    row |= {key: digest(manifest[key]) for key in ("code", "tuned") if manifest.get(key)}
    if summary:
        row["test_read"] = has_read_test(summary)
    row |= summary.get("metrics", {})
    row |= {f"best/{key}": value for key, value in summary.get("best", {}).get("metrics", {}).items()}
    return _shared(row)


def config_of(row: Row) -> Row:
    """The leaves of the run's config, by key written with dots."""
    return {key: value for key, value in row.items() if "." in key.partition("/")[0]}


def has_read_test(summary: Mapping[str, Any]) -> bool:
    """Whether a run has read the test split; schema 1 says it by its metrics alone."""
    if "test_read" in summary:
        return bool(summary["test_read"])
    return any(key.startswith("test/") for key in summary["metrics"])


def digest(part: Mapping[str, Any]) -> str:
    """16 hex digits of a part of a manifest: the same for runs that have it in common."""
    return hashlib.blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=8).hexdigest()


def _shared(row: Row) -> Row:
    """The same row, its words kept in memory once however many rows have them."""
    return {sys.intern(key): sys.intern(value) if isinstance(value, str) else value for key, value in row.items()}


def _config(text: str) -> Row:
    """The leaves of a config.yaml. YAML is slow and runs have most of theirs in common: each part is parsed once."""
    row: Row = {}
    for block in _KEYS.split(text):
        row |= _block(block)
    return row


@lru_cache(maxsize=4096)
def _block(block: str) -> Row:
    """The leaves below one key of the outermost mapping."""
    head, _, body = block.partition("\n")
    if not (re.fullmatch(r"\w+:", head) and body.startswith("  ")):
        return _parsed(block)
    row: Row = {}
    for part in _KEYS.split(re.sub(r"^  ", "", body, flags=re.MULTILINE)):
        row |= {f"{head[:-1]}.{key}": value for key, value in _parsed(part).items()}
    return row


@lru_cache(maxsize=4096)
def _parsed(block: str) -> Row:
    if number := _NUMBER.fullmatch(block):
        key, whole = number[1], number[2]
        return {key: int(whole) if number[3] is None else float(whole + number[3])}
    return dict(_leaves(yaml.load(block, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}, ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _load(path: Path) -> dict[str, Row]:
    """The rows of the index by directory; none where it cannot be trusted."""
    try:
        with open(path, encoding="utf-8") as file:
            if json.loads(next(file, "null")) != {"version": VERSION}:
                return {}
            rows = [_shared(json.loads(line)) for line in file]
        return {row["directory"]: row for row in rows if row["stamp"]}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _save(path: Path, rows: Iterable[Row]) -> None:
    lines = itertools.chain([{"version": VERSION}], rows)
    try:
        write_whole(path, lambda file: file.writelines(json.dumps(line).encode() + b"\n" for line in lines))
    except OSError as error:
        print(
            f"vrbench: {path} cannot be written ({error.strerror}); the runs are read anew next time", file=sys.stderr
        )


@terminal.output()
def main(words: Sequence[str]) -> int:
    """Answer `vrbench index` with these words after it: the folders of the runs that they select; the exit code."""
    parser = argparse.ArgumentParser(
        prog="vrbench index", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", type=Path, default=Path("results/runs"), help="default: results/runs")
    parser.add_argument("wanted", nargs="*", metavar="key=value", help="a config key, a choice, a metric or the status")
    options = parser.parse_args(words)
    try:
        wanted = {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in options.wanted)}
        for row in select(read_index(options.root), wanted):
            print(options.root / row["directory"])
    except BrokenPipeError:
        raise
    except (ValueError, OSError, yaml.YAMLError) as error:
        print(f"vrbench: index: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
