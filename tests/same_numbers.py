"""The one place that says which of a run's numbers must be the same, bit for bit, when the run is made again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, Any] = MappingProxyType({})


def numbers(
    rows: Iterable[Mapping[str, Any]], summary: Mapping[str, Any] = NOTHING, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Rows and summary but for what a clock says, and for keys of rows that begin with one of `without`."""
    left_out = ("time/", *without)
    return {
        "rows": [{key: value for key, value in row.items() if not key.startswith(left_out)} for row in rows],
        "summary": {key: value for key, value in summary.items() if key != "seconds"},
    }


def numbers_of_folder(folder: Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The `numbers` of a finished run's folder as its files have them (null stays None), and its pictures' bytes."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]
    summary = json.loads((folder / "summary.json").read_bytes())
    pictures = {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    return {**numbers(rows, summary, without), "pictures": pictures}
