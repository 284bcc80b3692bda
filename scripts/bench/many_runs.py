"""So many run folders in moments: copies of runs that were trained, each with its own seed, rate, identity and numbers.

The command that trained a source finds its copies finished: their ids are those of the runs that it would train.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import timing
import yaml

from vrbench.runs.identity import identify

START = "import sys; from vrbench.app.main import main; main()"
WORDS = ("logger=none", "trainer.max_steps=20")
"""What a source was trained with, beside its optimizer."""
RATE = 0.001
"""The rate of the optimizers that sources are trained with."""
SEEDS_AN_ARM = 8


def trained(results: Path, optimizer: str = "vradam") -> Path:
    """A run of the default task, trained here with seed 0: its folder. Raises CalledProcessError where it fails."""
    words = [f"results_dir={results}", f"optimizer={optimizer}", "study=source", *WORDS]
    subprocess.run([sys.executable, "-c", START, *words], cwd=timing.ROOT, stdout=subprocess.DEVNULL, check=True)
    (summary,) = results.glob(f"source/*-{optimizer}-*/summary.json")
    return summary.parent


def copies(source: Path, study: Path, runs: Iterable[tuple[int, float]]) -> None:
    """A copy of the source in the study's folder for each (seed, rate). Raises ValueError where it has other ones."""
    manifest, summary = (json.loads((source / name).read_text()) for name in ("manifest.json", "summary.json"))
    text, rows = (source / "config.yaml").read_text(), (source / "metrics.jsonl").read_text()
    config = yaml.safe_load(text)
    if config["optimizer"]["lr"] != RATE or f"lr: {RATE}" not in text or not text.startswith("seed: 0\n"):
        raise ValueError(f"{source}: must have seed 0 and the rate {RATE}")
    for seed, rate in runs:
        config["seed"], config["optimizer"]["lr"] = seed, rate
        identity = identify(config, follows_seed=manifest["follows_seed"], data=manifest["data"])
        name = manifest["name"].replace(f"-s0-{manifest['id']}", f"-s{seed}-{identity.id}")
        own = {"id": identity.id, "arm": identity.arm, "name": name, "seed": seed, "study": study.name}
        better = random.Random(name).gauss(1.0, 0.02)
        parts = {"metrics": summary["metrics"], "best": summary["best"]["metrics"]}
        parts = {part: {key: better * value for key, value in found.items()} for part, found in parts.items()}
        ends = {"metrics": parts["metrics"], "best": {**summary["best"], "metrics": parts["best"]}}
        folder = study / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({**manifest, **own}))
        (folder / "summary.json").write_text(json.dumps({**summary, **ends}))
        (folder / "config.yaml").write_text(
            text.replace("seed: 0", f"seed: {seed}", 1).replace(f"lr: {RATE}", f"lr: {rate}", 1)
        )
        (folder / "metrics.jsonl").write_text(rows)


def many_runs(root: Path, number: int) -> None:
    """So many runs in seven studies, eight seeds an arm: arms differ in their rate."""
    with tempfile.TemporaryDirectory() as folder:
        source = trained(Path(folder))
        for study in range(7):
            places = [place for place in range(number) if place // SEEDS_AN_ARM % 7 == study]
            runs = [(place % SEEDS_AN_ARM, (place // SEEDS_AN_ARM + 1) / 1e6) for place in places]
            copies(source, root / f"study{study}", runs)
