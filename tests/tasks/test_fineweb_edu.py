"""Text in files: trained on from the command line, mapped, on the host where it is large."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vrbench.tasks.language_modeling import LanguageModeling

from vrbench.data.text import Corpus
from vrbench.data.tokenization import Char

Call = Callable[..., int]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_fineweb_edu_trains_on_parquet_in_the_hubs_layout(vrbench: Call, tmp_path: Path) -> None:
    """Ten steps, twice the same; the second run does not tokenize again."""
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "fineweb/sample/10BT").mkdir(parents=True)
    for file in range(2):
        texts = [
            f"Lesson {number}: water boils at {number} degrees.\nRead it again.\n" for number in range(file, 200, 2)
        ]
        columns = {"text": texts, "id": [f"<urn:{file}>"] * len(texts), "score": [3.5] * len(texts)}
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / f"fineweb/sample/10BT/00{file}_00000.parquet")
    small = ["task.context=16", "task.batch_size=2", "model.size=tiny", "trainer.accumulate=2", "trainer.log_every=1"]
    data = [f"task.data.path={tmp_path / 'fineweb'}", "task/tokenizer=bpe", "task.tokenizer.vocab_size=300"]
    shares = ["task.data.val_fraction=0.1", "task.data.test_fraction=0.1"]
    run = ("task=fineweb_edu", "logger=none", "trainer.device=cpu", *small, *data, *shares, "trainer.max_steps=10")
    assert vrbench(*run) == 0
    (folder,) = (tmp_path / "default").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 10
    assert math.isfinite(summary["metrics"]["test/loss"])
    (tokens,) = (tmp_path / "cache/vrbench").glob("tokens-*/manifest.json")
    assert json.loads(tokens.read_text())["dtype"] == "uint16"
    made = tokens.stat().st_mtime_ns
    assert vrbench(*run, "study=again") == 0
    assert tokens.stat().st_mtime_ns == made
    (again,) = (tmp_path / "again").iterdir()
    assert losses(again) == losses(folder)


def losses(folder: Path) -> list[float]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row["train/loss"] for row in rows if "train/loss" in row]


def letters() -> LanguageModeling:
    corpus = Corpus(["abcdefghijklmnopqrstuvwxyz"], ["abcabc"], ["defdef"])
    return LanguageModeling("t", 1, 2, 3, "contiguous", None, corpus, Char())


def test_a_long_stream_stays_where_it_is_and_its_batches_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = torch.device("meta")
    task = letters()
    task.to(elsewhere)
    assert task.streams["train"].device == elsewhere
    monkeypatch.setattr("vrbench.data.placing.ON_DEVICE", 0)
    task = letters()
    task.to(elsewhere)
    assert task.streams["train"].device.type == "cpu"
    batch = next(iter(task.train_batches(torch.Generator(), torch.Generator())))
    assert batch.device == elsewhere
    assert batch.shape == (1, 4)
    assert task.probe_batches(2, 1)[0][1].device == elsewhere
