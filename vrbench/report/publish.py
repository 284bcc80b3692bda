"""What is committed of a study: its records in one file, and tables and figures made from that file alone.

records.tar.xz   all runs that are over and all searches (`vrbench.runs.archive`)
tables.md        every arm, every rival against the baseline, what was tuned, times to targets, robustness
verdicts.json    the same rows to 12 digits: the last ones of a double depend on the kind of CPU
provenance.json  how many runs, commits, versions, machines, seeds, commands
forest.svg       all comparisons on one axis
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vrbench.report import forest, formats, tables, task_summary
from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.figures import MOST_ARMS
from vrbench.report.looks import Looks
from vrbench.report.registered import FILE as PLAN
from vrbench.report.registered import registered
from vrbench.report.rivals import rivals
from vrbench.report.style import NoData, save, styled
from vrbench.runs import archive
from vrbench.runs.records import write_json, write_whole


def publish(study: Path, folder: Path, *, tables_too: bool = True) -> list[Path]:
    """Pack a study's records into a folder and make the rest from them. Returns the files. Raises as `rebuild` does.

    What was looked at before goes with the records; this look is noted in the study, for those to come.
    """
    if next(study.glob("**/summary.json"), None) is None:
        raise ValueError(f"{study}: no run that is over")
    archive.pack(study, folder / archive.FILE)
    if not tables_too:
        return [folder / archive.FILE]
    files = rebuild(folder)
    rivals(confirmed(study), MOST_ARMS, Looks(), "publication")
    return [folder / archive.FILE, *files]


def rebuild(folder: Path) -> list[Path]:
    """Make a published study's tables and figure again from its records. Returns the files.

    Raises FileNotFoundError without records, ValueError for records that cannot be read, OSError.
    """
    with tempfile.TemporaryDirectory() as temporary:
        study = Path(temporary).resolve() / folder.resolve().name
        archive.unpack(folder / archive.FILE, study)
        return _write(study, folder)


def confirmed(study: Path) -> list[Arm]:
    """The arms of a study's confirmation, or all of them where nothing was confirmed; their code is not held against
    the files of today."""
    folder = study / "confirm"
    return collect([folder if folder.is_dir() else study], today=False)


def _write(study: Path, folder: Path) -> list[Path]:
    arms = confirmed(study)
    plan, met = registered(arms), rivals(arms, MOST_ARMS, Looks(), "publication")
    summary = tables.summary([arm for arm in arms if arm.over])
    shown = [summary, *(rival.table for rival in met), task_summary.time_profiles(arms)]
    if (good := task_summary.robustness(arms)) is not None:
        shown.append(good)
    titles = ["Every configuration", *(f"{rival.name} against {rival.baseline}" for rival in met),
              "Who reaches targets first", "How much of each space is good"]  # fmt: skip
    text = [f"# {folder.resolve().name}", "", *([plan.note, ""] if plan else []), _counted(study), ""]
    told: list[list[str]] = [[], *(rival.overall for rival in met), [], []]
    for title, table, lines in zip(titles, shown, told, strict=False):
        said = [f"{formats.escape_markdown(line)}\n" for line in lines]
        text += [f"## {title}", "", *said, formats.markdown(table)]
    files = [folder / name for name in ("tables.md", "verdicts.json", "provenance.json")]
    write_whole(files[0], lambda file: file.write("\n".join(text).encode()))
    write_json(files[1], {title: _rounded(table.records) for title, table in zip(titles, shown, strict=False)})
    write_json(files[2], provenance(study))
    try:
        with styled():
            drawn = forest.figure(met)
            files.append(folder / "forest.svg")
            write_whole(files[-1], lambda file: save(drawn, file, "svg"))
    except NoData:
        pass
    return files


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _counted(study: Path) -> str:
    """How many runs there are, and what became of them; of a planned study, how many are left."""
    told = []
    planned = json.loads((study / PLAN).read_bytes()).get("runs", {}) if (study / PLAN).exists() else {}
    for part, name in (("tune", "trials' runs"), ("confirm", "confirmation runs")):
        runs = list(study.glob(f"{part}/*/summary.json"))
        if runs:
            of = f" of {planned[part]} planned" if part in planned else ""
            told.append(f"{len(runs)}{of} {name} are over{_ended(runs)}")
    if not told:
        runs = list(study.glob("**/summary.json"))
        told.append(f"{len(runs)} runs are over{_ended(runs)}")
    return f"{'; '.join(told)}."


def _ended(summaries: Sequence[Path]) -> str:
    """How the runs of some summaries ended: ` (1 diverged, 7 finished)`."""
    status = Counter(json.loads(path.read_bytes())["status"] for path in summaries)
    return f" ({', '.join(f'{count} {word}' for word, count in sorted(status.items()))})" if status else ""


def provenance(study: Path) -> dict[str, Any]:
    """What the manifests of all runs agree on, and where they differ."""
    manifests = [json.loads(path.read_bytes()) for path in sorted(study.glob("**/manifest.json"))]
    kinds: Mapping[str, Sequence[Any]] = {
        key: [json.loads(kind) for kind in sorted({json.dumps(m[key], sort_keys=True) for m in manifests if key in m})]
        for key in ("git", "vrbench_git", "versions", "machine")
    }
    started = sorted(manifest["started"] for manifest in manifests)
    return {
        "runs": len(manifests),
        "first": started[0],
        "last": started[-1],
        "seeds": sorted({manifest["seed"] for manifest in manifests}),
        **kinds,
        "commands": sorted({" ".join(_command(manifest)) for manifest in manifests}),
    }


def _command(manifest: Mapping[str, Any]) -> list[str]:
    """As it was given, but for where this machine has its results."""
    return ["vrbench", *(word for word in manifest["command"][1:] if not word.startswith("results_dir="))]
