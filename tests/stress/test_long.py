"""One run of very many steps: rows, memory and speed stay as they are. Looks at the wall's clock: run it alone."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from stress.short_runs import only_run
from stress.sizes import sizes
from stress.watch import watch

from vrbench.runs.records import read_rows


@sizes("steps, timed", short=(10_000, False), full=(200_000, True))
def test_a_run_of_many_steps_stays_as_it_is(steps: int, timed: bool, tmp_path: Path, figures: dict[str, Any]) -> None:
    """Of the smallest model."""
    command = [
        "logger=none", "optimizer=sgd", "optimizer.lr=0.01", "model.hidden=[]", "task.batch_size=8",
        "task.data.train_size=64", f"trainer.max_steps={steps}", "trainer.log_every=100",
        f"trainer.eval_every={steps // 10}", "trainer.threads=1", "trainer.device=cpu",
        "trainer.checkpoint_seconds=2", f"results_dir={tmp_path}", "study=long",
    ]  # fmt: skip
    seen = watch(command, tmp_path / "long.txt", lambda: 0)
    path = only_run(tmp_path / "long") / "metrics.jsonl"
    rows, lines = list(read_rows(path)), path.read_bytes().splitlines()
    assert len(rows) == len(lines) == steps // 100
    rates = [row["time/steps_per_s"] for row in rows]
    tenth = len(rows) // 10
    first, last = statistics.median(rates[tenth : 3 * tenth]), statistics.median(rates[-2 * tenth :])
    settled = seen[len(seen) // 4 :]
    memory, handles = ([sample[key] for sample in settled] for key in ("rss_mb", "handles"))
    widths = [round(statistics.fmean(map(len, part))) for part in (lines[:tenth], lines[-tenth:])]
    figures |= {
        "steps": rows[-1]["step"],
        "rows": len(rows),
        "bytes_per_row_first_and_last_tenth": widths,
        "steps_per_s_early_and_late": [round(first), round(last)],
        "rss_mb_early_and_at_end": [memory[0], memory[-1]],
        "handles_early_and_at_end": [handles[0], handles[-1]],
    }
    assert memory[-1] / memory[0] < 1.05
    assert max(handles) - min(handles) <= 2
    assert not timed or last > 0.85 * first
