"""What is to be done with a run that has a folder already: skip it, go on with it, train it again, or refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from vrbench.contracts import RunInfo
from vrbench.runs import records
from vrbench.runs.identity import differences, relevant
from vrbench.runs.redact import HIDDEN
from vrbench.runs.source import changed_since

Force = Literal[True, False, "changed", "resume"]

SKIPPED = "already, skipped (force=true trains it again)"
"""The line of a run that is skipped and is all that was asked for."""

NOT_RUNS = ("search", "best", "report")
"""Folders of a study beside its runs: searches, their best configurations, tables and pages."""


@dataclass(frozen=True)
class Standing:
    """What to do, and what to say."""

    action: Literal["train", "anew", "skip"]
    """`train`: from its checkpoint where there is one; `anew`: what is there goes; `skip`: it is finished."""
    line: str = ""
    changed: tuple[str, ...] = ()
    """Code that has changed since the run began, where the user goes on with it knowingly."""


def check_study(study: str, results: Path) -> None:
    """Raises ValueError for a study whose runs would lie among what is not its own, or be taken for another's."""
    *outer, last = study.split("/")
    if outer and last in NOT_RUNS:
        raise ValueError(f"study={study}: {'/'.join(outer)} keeps what is not runs in its {last}; take another name")
    for depth in range(1, len(outer) + 1):
        if (results / "/".join(outer[:depth]) / "manifest.json").exists():
            raise ValueError(f"study={study}: {'/'.join(outer[:depth])} is a run, and holds no studies")
    folder = results / study
    if folder.parent.is_dir() and not folder.exists():
        same = [path.name for path in folder.parent.iterdir() if path.name.casefold() == last.casefold()]
        if same:
            raise ValueError(
                f"study={study}: there is a {'/'.join([*outer, min(same)])}, and where capital letters do not count "
                "(macOS, Windows) the two are one; take another name"
            )


def standing(run: RunInfo, force: Force) -> Standing:
    """Decide. Raises ValueError where the folder holds another run, or one that cannot be gone on with as it is."""
    folder = run.directory
    over = records.is_over(folder)
    if over and force is True:
        return Standing("anew")
    records.check_folder(folder)
    manifest = _manifest(run)
    if manifest is None or manifest["schema"] != records.SCHEMA:
        return Standing("train")
    stored = _stored(run)
    if over and stored is None:
        raise ValueError(f"{folder}: is finished, and config.yaml cannot be read; force=true trains it again")
    if other := _other_config(run, manifest, stored):
        if force is True:
            return Standing("anew", f"its folder held another config ({'; '.join(other[:3])}): begun anew")
        more = f" (and {len(other) - 3} more)" if len(other) > 3 else ""
        raise ValueError(
            f"{run.directory}: holds a run of another config ({'; '.join(other[:3])}{more}); "
            "take another study= or results_dir=, or force=true to train over it"
        )
    code = manifest.get("code", {})
    changed = () if code == run.code else tuple(changed_since(code))  # looks for every file again
    if over:
        if changed and force == "changed":
            return Standing("anew", f"its code has changed since ({', '.join(changed)}): trained again")
        return Standing("skip", _skipped(run, changed, stored or {}))
    if not changed or not list((folder / "checkpoint").glob("*.pt")):
        return Standing("train")
    if force in (True, "changed"):
        return Standing("anew", f"its code has changed since it began ({', '.join(changed)}): begun anew")
    if force == "resume":
        return Standing("train", f"goes on with other code ({', '.join(changed)}); its manifest says so", changed)
    raise ValueError(
        f"{run.name}: its code has changed since it began ({', '.join(changed)}), and half of it would be of each: "
        "force=changed begins it anew, force=resume goes on knowingly"
    )


def _manifest(run: RunInfo) -> dict[str, Any] | None:
    """The manifest of a run that began; None where there is none to read, and it begins again."""
    try:
        return records.Run(run.directory).manifest
    except (FileNotFoundError, ValueError):
        return None


def _stored(run: RunInfo) -> dict[str, Any] | None:
    """The folder's config; None where there is none to read, as where a process died before it was there."""
    try:
        text = (run.directory / "config.yaml").read_bytes()
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except (FileNotFoundError, yaml.YAMLError):
        return None


def _other_config(run: RunInfo, manifest: Mapping[str, Any], stored: Mapping[str, Any] | None) -> list[str]:
    """The keys, with both values, at which the folder's config is not the one that is asked for."""
    if stored is None:
        return []
    there, asked = relevant(stored, manifest.get("data", {})), relevant(run.config, run.data)
    hidden = {key for key, value in there.items() if isinstance(value, str) and HIDDEN in value}
    known = [{key: value for key, value in side.items() if key not in hidden} for side in (there, asked)]
    return differences(*known)


def _skipped(run: RunInfo, changed: tuple[str, ...], stored: Mapping[str, Any]) -> str:
    """What the line of a skipped run says after its status: what it is not, and how to have it."""
    summary = records.Run(run.directory).summary or {}
    if changed:
        return f"already, skipped; its code has changed since ({', '.join(changed)}): force=changed trains it again"
    without = [name for name in run.config["probe"] if name not in (stored.get("probe") or {})]
    if without:
        return f"without probe {' and '.join(without)}: force=true measures it"
    other = [name for name, probe in run.config["probe"].items() if stored["probe"][name] != probe]
    if other:
        return f"with other settings of probe {' and '.join(other)}: force=true measures it again"
    if run.config["trainer"]["evaluate_test"] and summary["status"] == "finished" and not summary["test_read"]:
        return "without reading the test split: force=true reads it"
    return SKIPPED
