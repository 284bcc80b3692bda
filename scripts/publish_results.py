"""What is committed of a scale of scripts/reproduce_paper.py: small files from which every table can be made again.

    python scripts/publish_results.py cpu        # results/runs/cpu-* → results/cpu/

runs.csv         one row a confirmed run: choices, seed, status, validation at its best, test, seconds
searches.json    every search: budget, space, trials, the best one, and whether it lies on an edge
tables.md        the tables of vrbench-report: every arm, VRAdam against each rival, ablations
verdicts.json    the same rows in full precision, and what was tuned for each arm of each study
paper.md         Table 1, Table 4 and Figure 2 beside the published figures
provenance.json  commits, versions, machine class, seeds and commands of the runs
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vrbench.records import write_json, write_whole
from vrbench.report import formats, paper, tables
from vrbench.report.arms import Arm, collect
from vrbench.report.compare import Smallest, compare, pick

RUNS, RESULTS = Path("results/runs"), Path("results")
OURS = "vradam"


def run_rows(study: str, arms: Sequence[Arm]) -> Iterator[dict[str, Any]]:
    """One flat row a run that is over."""
    for arm in arms:
        for run in arm.over:
            summary = run.summary or {}
            yield {
                "study": study,
                "task": arm.task,
                "model": arm.model,
                "optimizer": arm.optimizer,
                "settings": arm.settings_told,
                "seed": run.manifest["seed"],
                "id": run.manifest["id"],
                "status": run.status,
                "metric": arm.metric,
                "best_val": summary["best"]["metrics"].get(f"val/{arm.metric}"),
                "test": summary["metrics"].get(f"test/{arm.metric}"),
                "test_loss": summary["metrics"].get("test/loss"),
                "steps": summary["steps"],
                "train_seconds": round(summary["seconds"]["train"], 3),
            }


def provenance(studies: Sequence[Path]) -> dict[str, Any]:
    """What the manifests of all runs agree on, and where they differ."""
    manifests = [json.loads(path.read_bytes()) for study in studies for path in sorted(study.glob("**/manifest.json"))]
    keys = ("git", "vrbench_git", "versions", "machine")
    said = {key: {json.dumps(m[key], sort_keys=True) for m in manifests if key in m} for key in keys}
    kinds = {key: [json.loads(kind) for kind in sorted(found)] for key, found in said.items()}
    commands = sorted({" ".join(["vrbench", *m["command"][1:]]) for m in manifests})
    started = sorted(m["started"] for m in manifests)
    seeds = sorted({m["seed"] for m in manifests})
    return {"runs": len(manifests), "first": started[0], "last": started[-1], "seeds": seeds, **kinds,
            "commands": commands}  # fmt: skip


def searches(study: Path) -> list[dict[str, Any]]:
    """The plain summaries of a study's searches, without what their run folders hold."""
    found = []
    for path in sorted(study.glob("search/*/trials.json")):
        summary = json.loads(path.read_bytes())
        for trial in summary["trials"]:
            trial.pop("runs", None)
        found.append(summary)
    return found


def main() -> None:
    """Read the studies of a scale, write its folder in results/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scale", choices=("smoke", "cpu", "full"))
    scale = parser.parse_args().scale
    studies = sorted(path for path in RUNS.glob(f"{scale}-*") if path.is_dir())
    if not studies:
        parser.error(f"{RUNS} has no study of this scale: run scripts/reproduce_paper.py first")
    output = RESULTS / scale
    output.mkdir(parents=True, exist_ok=True)

    arms = {study.name.removeprefix(f"{scale}-"): collect([study]) for study in studies}
    rows = [row for study, found in arms.items() for row in run_rows(study, found)]
    with open(output / "runs.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(output / "searches.json", {study.name: held for study in studies if (held := searches(study))})
    write_json(output / "provenance.json", provenance(studies))

    text = [f"# Tables of the `{scale}` scale", ""]
    records: dict[str, Any] = {}
    tuned: dict[str, list[dict[str, Any]]] = {}
    for study, found in arms.items():
        made = tables.summary(found)
        text += [f"## {study}", "", formats.markdown(made)]
        records[study] = made.records
        if made.appendix is not None:
            tuned[study] = made.appendix.records
        if study != "table1":
            continue
        ours = pick(found, OURS)
        for rival in sorted({arm.optimizer for arm in found} - {OURS}):
            theirs = pick(found, rival)
            couples = [(ours[key], theirs[key]) for key in ours if key in theirs]
            judged = compare(couples, "test", Smallest())
            made = tables.comparison(judged, OURS, rival, "test", Smallest(), "bootstrap-t")
            text += [f"### {OURS} against {rival}", "", formats.markdown(made)]
            records[f"{OURS} against {rival}"] = made.records
    write_whole(output / "tables.md", lambda file: file.write("\n".join(text).encode()))
    write_json(output / "verdicts.json", {**records, "tuned": tuned})
    answering = [arm for study, found in arms.items() for arm in found if not study.startswith("ablations")]
    paper.write(answering, output / "paper.md")
    print(f"{len(rows)} runs → {output}")


if __name__ == "__main__":
    main()
