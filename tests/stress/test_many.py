"""Thousands of tiny runs in one multirun: nothing grows."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from stress.sizes import sizes
from stress.watch import Sample, watch


@sizes("runs, timed", short=(60, False), full=(2000, True))
def test_nothing_grows(runs: int, timed: bool, tmp_path: Path, figures: dict[str, Any]) -> None:
    """Memory, file handles and time a run, once a twentieth of the runs is done."""
    command = [
        "-m", "logger=none", "optimizer=sgd", "model.hidden=[]", "trainer.max_steps=1", "trainer.threads=1",
        "trainer.device=cpu", f"seed=range(0,{runs})", f"results_dir={tmp_path}", "study=many",
    ]  # fmt: skip
    study = tmp_path / "many"
    seen = watch(command, tmp_path / "many.txt", lambda: sum(1 for _ in study.iterdir()) if study.exists() else 0)
    assert len(list(study.glob("*/summary.json"))) == runs
    seen = [sample for sample in seen if sample["done"] < runs]
    settled = [sample for sample in seen if sample["done"] >= runs / 20]
    memory = [sample["rss_mb"] for sample in settled]
    handles = [sample["handles"] for sample in settled]
    early = cpu_per_run([sample for sample in settled if sample["done"] < runs * 0.3])
    late = cpu_per_run([sample for sample in settled if sample["done"] >= runs * 0.7])
    base, end = statistics.median(memory[:5]), statistics.median(memory[-5:])
    # A sample may find files open that a run is just writing: the least of a few is what stays open.
    first_handles, last_handles = min(handles[:5]), min(handles[-5:])
    figures |= {
        "runs": runs,
        f"rss_mb_after_{runs // 20}": base,
        "rss_mb_at_end": end,
        "rss_growth_percent": round(100 * (end / base - 1), 2),
        "rss_peak_percent": round(100 * (max(memory) / base - 1), 2),
        f"handles_after_{runs // 20}_and_at_end": [first_handles, last_handles],
        "cpu_s_per_run_first_and_last_third": [early, late],
        "wall_s": round(seen[-1]["time"] - seen[0]["time"], 1),
    }
    assert max(memory) / base < 1.05
    assert last_handles - first_handles <= 2
    assert not timed or late < 1.15 * early


def cpu_per_run(samples: list[Sample]) -> float:
    """Processor seconds a run between the first and the last sample."""
    first, last = samples[0], samples[-1]
    return round((last["cpu"] - first["cpu"]) / max(1, last["done"] - first["done"]), 4)
