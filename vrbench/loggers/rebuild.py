"""Rebuild the W&B runs of run folders from their records: metrics.jsonl, pictures, summary.json.

    vrbench wandb rebuild results/runs/mine            # offline runs, and the command that uploads them
    vrbench wandb rebuild results/runs/mine --project other --entity team

For runs that were made without W&B, whose offline folder was lost, or that are to go to another project. A run's old
offline folder is replaced. Unfinished runs are left out: going on with one rewrites its W&B run by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vrbench.contracts import RunInfo
from vrbench.loggers.wandb import WandB
from vrbench.runs import records


def rebuild(run: records.Run, project: str | None, entity: str | None) -> Path:
    """Write the offline W&B run of a finished run anew and return its folder.

    Project and entity are those of the run's own config where they are not given. Raises OSError, and ValueError for
    records that cannot be read.
    """
    manifest, summary = run.manifest, run.summary
    assert summary is not None, "the run is over"
    config: dict[str, Any] = yaml.safe_load((run.directory / "config.yaml").read_bytes())
    own = config.get("logger", {}).get("wandb", {})
    info = RunInfo(
        manifest["id"], manifest["arm"], manifest["name"], manifest["study"], run.directory, config,
        manifest["choices"], manifest["seed"], manifest.get("label", ""), suffix=manifest.get("suffix", "rebuilt"),
    )  # fmt: skip
    logger = WandB(project or own.get("project", "vrbench"), entity or own.get("entity"), tags=own.get("tags", ()))
    logger.rebuild(info, run.rows(), summary)
    (folder,) = run.directory.glob("wandb/offline-run-*")
    return folder


def main(words: Sequence[str]) -> None:
    """Rebuild the runs below a folder and say how to upload them. Raises as `rebuild` does."""
    parser = argparse.ArgumentParser(
        prog="vrbench wandb rebuild", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="a run folder, or a folder of them")
    parser.add_argument("--project", help="W&B project; default: the one in the run's config, else vrbench")
    parser.add_argument("--entity", help="W&B user or team; default: likewise")
    options = parser.parse_args(words)
    rebuilt = []
    for run in records.find_runs(options.root):
        if run.summary is None:
            print(f"{run.directory}: unfinished, left out", file=sys.stderr)
            continue
        rebuilt.append(rebuild(run, options.project, options.entity))
    print(f"{len(rebuilt)} runs rebuilt; to upload them:")
    for folder in rebuilt:
        print(f"  wandb sync {folder}")
