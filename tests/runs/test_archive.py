"""A study's records in one file: the same bytes for the same records, and a study that can go on from them."""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from pathlib import Path

import pytest
from made_runs import make_run

from vrbench.runs import archive
from vrbench.runs.records import find_runs


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for seed in range(3):
        folder = make_run(tmp_path, 0.9, seed=seed, study="s/confirm", rows=200)
        rows = [{"step": step, "train/loss": 1 / step} | ({"val/loss": 2.0} if step % 50 == 0 else {})
                for step in range(1, 1001)]  # fmt: skip
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    make_run(tmp_path, 0.9, seed=9, study="s/confirm", status="unfinished")
    search = tmp_path / "s/search/one"
    search.mkdir(parents=True)
    (search / "trials.json").write_text("{}")
    (search / "journal.log").write_text("a\nb\n")
    (tmp_path / "s/plan.json").write_text("{}")
    return tmp_path / "s"


def test_what_is_packed_comes_back(study: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept" / archive.FILE
    assert archive.pack(study, file) == 3
    first = file.read_bytes()
    assert archive.pack(study, file) == 3
    assert file.read_bytes() == first
    again = tmp_path / "again"
    archive.unpack(file, again)
    assert {path.name for path in (again / "search/one").iterdir()} == {"trials.json", "journal.log"}
    assert (again / "plan.json").read_text() == "{}"
    runs = find_runs(again)
    assert [run.manifest["seed"] for run in runs] == [0, 1, 2]
    for run in runs:
        there = study / run.directory.relative_to(again)
        for name in ("config.yaml", "manifest.json", "summary.json"):
            record = (there / name).read_text()
            assert (run.directory / name).read_text() == record.replace(str(tmp_path), "results/runs")
        rows = list(run.rows())
        assert [row["step"] for row in rows if "val/loss" in row] == list(range(50, 1001, 50))
        assert 20 < len(rows) <= 20 + archive.ROWS // 3 + 1
        assert set(map(json.dumps, rows)) <= set(map(json.dumps, map(json.loads, (there / "metrics.jsonl").open())))
        assert str(tmp_path) in (there / "config.yaml").read_text()
    assert archive.pack(again, tmp_path / "twice.tar.xz") == 3
    assert str(tmp_path).encode() not in lzma.decompress(file.read_bytes())


def test_what_is_there_stays(study: Path, tmp_path: Path) -> None:
    archive.pack(study, tmp_path / archive.FILE)
    (study / "plan.json").write_text("mine")
    archive.unpack(tmp_path / archive.FILE, study)
    assert (study / "plan.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_nothing_is_written_outside(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad", "w:xz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match="which is no record"):
        archive.unpack(tmp_path / "bad", tmp_path / "study")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_named(study: Path, tmp_path: Path) -> None:
    archive.pack(study, tmp_path / archive.FILE)
    whole = (tmp_path / archive.FILE).read_bytes()
    for data in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / archive.FILE).write_bytes(data)
        with pytest.raises(ValueError, match=r"records\.tar\.xz: is no file of records"):
            archive.unpack(tmp_path / archive.FILE, tmp_path / "x")
