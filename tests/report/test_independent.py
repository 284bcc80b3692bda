"""The committed verdicts once more, from the records alone: tarfile, yaml and scipy, nothing of vrbench."""

from __future__ import annotations

import inspect
import json
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from scipy import stats

SEED = {"rng" if "rng" in inspect.signature(stats.permutation_test).parameters else "random_state": 1}
"""As this scipy calls it."""
TABLES = {path.parent: json.loads(path.read_text()) for path in sorted(ROOT.glob("results/*/verdicts.json"))}
ROWS = {
    folder: [
        row
        for title, table in tables.items()
        if " against " in title
        for row in table
        if row.get("p") is not None and row["split"] == "test"
    ]
    for folder, tables in TABLES.items()
    if (folder / "records.tar.xz").exists()
}
"""The comparisons of each study that were tested, on the test split."""


def studies(unit: str) -> list[Path]:
    """Those whose comparisons are over replicates, or over seeds."""
    return [folder for folder, rows in ROWS.items() if any(row["unit"] == unit for row in rows)]


def confirmed(folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Manifest, with `config`, and summary of every run that finished, without a search's trials and the control's."""
    with tarfile.open(folder / "records.tar.xz") as records:
        names = [
            name
            for name in records.getnames()
            if not name.startswith("tune/") and name.endswith(("manifest.json", "summary.json", "config.yaml"))
        ]
        texts = {name: file.read().decode() for name in names if (file := records.extractfile(name))}
    runs = [
        (json.loads(texts[name.replace("summary", "manifest")]), json.loads(text), name.replace("summary.json", ""))
        for name, text in texts.items()
        if name.endswith("summary.json")
    ]
    return [
        (run | {"config": yaml.load(texts[place + "config.yaml"], yaml.CSafeLoader)}, summary)
        for run, summary, place in runs
        if summary["status"] == "finished" and not (run.get("tuned") or {}).get("control")
    ]


def of(
    runs: list[tuple[dict[str, Any], dict[str, Any]]], row: dict[str, Any], arm: str
) -> dict[tuple[int, int], float]:
    """An arm's test metric by tuning seed and seed; its label says the settings that tell it from others."""
    optimizer, *settings = arm.split(" ")
    asked = {"task": row["task"], "model": row["model"], "optimizer": optimizer}
    asked |= dict(setting.split("=") for setting in settings)
    return {
        ((run.get("tuned") or {"seeds": [0]})["seeds"][0], run["seed"]): summary["metrics"][f"test/{row['metric']}"]
        for run, summary in runs
        if all(said(run, key) == value for key, value in asked.items())
    }


def said(run: dict[str, Any], key: str) -> str:
    """A choice (`schedule`), a setting (`schedule.warmup`), or one of the optimizer (`beta3`), as labels write it."""
    if key in run["choices"]:
        return str(run["choices"][key])
    group, _, name = key.rpartition(".")
    value = run["config"][group or "optimizer"][name]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def replicate_means(a: dict[tuple[int, int], float], b: dict[tuple[int, int], float]) -> list[float]:
    """The mean difference over the seeds of each replicate."""
    found = defaultdict(list)
    for replicate, seed in sorted(a.keys() & b.keys()):
        found[replicate].append(a[replicate, seed] - b[replicate, seed])
    return [sum(values) / len(values) for values in found.values()]


def p_value(differences: list[float], test: str) -> float:
    """Student's, or that of all sign flips (at most 20,000 of them); of one difference both flips are as far out."""
    if len(differences) == 1:
        return 1.0
    if test == "t":
        return float(stats.ttest_1samp(differences, 0.0).pvalue)
    flips = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20_000, **SEED)
    return float(flips.pvalue)


def first_seen(folder: Path, runs: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """The runs of a study's only comparison that its first look saw; that look had seen all replicates."""
    with tarfile.open(folder / "records.tar.xz") as records:
        file = records.extractfile("confirm/looks.jsonl")
        assert file is not None
        look = json.loads(file.readline())
    tunings = sorted({tuning for tuning, _ in runs})
    seen = {(tunings[replicate], seed) for replicate, seed in look["runs"]}
    return {key: value for key, value in runs.items() if key in seen}


def evidence(differences: list[float], centre: float) -> float:
    """Against symmetry about a centre: of bets 0.5, 1, 2, 4 on either side, exp(λz) / cosh(λz) over the units."""
    d = np.array(differences) - centre
    z = d / np.sqrt(np.cumsum(d**2) / np.arange(1, d.size + 1))
    return float(np.mean([np.prod(np.exp(bet * z) / np.cosh(bet * z)) for bet in (0.5, 1, 2, 4, -0.5, -1, -2, -4)]))


@pytest.mark.parametrize("folder", studies("replicate"), ids=lambda folder: folder.name)
def test_means_intervals_and_p_are_those_of_an_independent_script(folder: Path) -> None:
    """Over replicates; where a run diverged the test goes by ranks, and the mean is over the others. Where fewer runs
    were looked at before, interval and p are those of the test that may be looked at often."""
    runs = confirmed(folder)
    for row in ROWS[folder]:
        a, b = of(runs, row, row["a"]), of(runs, row, row["b"])
        differences = replicate_means(a, b)
        if row["test"] == "e-process":
            assert row["difference"] == pytest.approx(sum(differences) / len(differences), rel=1e-9)
            seen = replicate_means(first_seen(folder, a), first_seen(folder, b))
            assert row["p"] == pytest.approx(min(1, 1 / evidence(seen, 0.0)), rel=1e-9)
            for bound, out in ((row["difference_low"], -1e-4), (row["difference_high"], 1e-4)):
                assert evidence(seen, bound - out) < 20 <= evidence(seen, bound + out)
            continue
        low, high = stats.ttest_1samp(differences, 0.0).confidence_interval()
        said = [row[key] for key in ("difference", "difference_low", "difference_high")]
        assert said == pytest.approx([sum(differences) / len(differences), low, high], rel=1e-9), row
        if not row["diverged_a"] + row["diverged_b"]:
            exact = row["test"] == "t" or len(differences) <= 14
            assert row["p"] == pytest.approx(p_value(differences, row["test"]), rel=1e-9 if exact else 0.05), row


@pytest.mark.parametrize("folder", studies("seed"), ids=lambda folder: folder.name)
def test_means_and_p_over_seeds_are_those_of_an_independent_script(folder: Path) -> None:
    """Where each side has one tuning, or none. The interval is a bootstrap's, which another's draws do not give."""
    runs = confirmed(folder)
    for row in ROWS[folder]:
        a, b = ({seed: value for (_, seed), value in of(runs, row, arm).items()} for arm in (row["a"], row["b"]))
        differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
        assert len(differences) == row["units"]
        assert row["difference"] == pytest.approx(sum(differences) / len(differences), rel=1e-9)
        if not row["diverged_a"] + row["diverged_b"]:
            assert row["p"] == pytest.approx(p_value(differences, "sign-flip"), rel=1e-9), row
