"""The files of a run folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import IO

import pytest

from vrbench.runs.records import (
    SCHEMA,
    MetricsFile,
    Run,
    check_rows,
    cpu_model,
    find_runs,
    read_rows,
    run_folder,
    write_json,
    write_whole,
)


def test_a_failed_write_leaves_the_old_file_and_no_scrap(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"status": "finished"})

    def breaks(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, breaks)
    assert json.loads(path.read_text()) == {"status": "finished"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_is_found_by_its_id_whatever_its_folder_is_called(tmp_path: Path) -> None:
    """However short a time ago another process has made that folder."""
    assert run_folder(tmp_path / "study", "a-s0-11", "11") == tmp_path / "study" / "a-s0-11"
    for name, found in (("11", "a-s0-11"), ("x-s0-22", "a-s0-11"), ("b-x-s0-11", "b-x-s0-11"), ("b-s0-11", "b-s0-11")):
        (tmp_path / name).mkdir()
        assert run_folder(tmp_path, "a-s0-11", "11") == tmp_path / found
    os.utime(tmp_path, (0, 0))
    assert run_folder(tmp_path, "a-s0-33", "33") == tmp_path / "a-s0-33"
    (tmp_path / "b-s0-33").mkdir()
    assert run_folder(tmp_path, "a-s0-33", "33") == tmp_path / "b-s0-33"
    (tmp_path / "a-s0-33").mkdir()
    assert run_folder(tmp_path, "a-s0-33", "33") == tmp_path / "a-s0-33"


def test_a_study_is_listed_once_for_all_its_new_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-s0-99").mkdir()
    os.utime(tmp_path, (0, 0))
    listed: list[object] = []
    for name in ("listdir", "scandir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda path, real=real: [listed.append(path), real(path)][1])
    for number in range(10, 60):
        assert run_folder(tmp_path, f"a-s0-{number}", str(number)).name == f"a-s0-{number}"
    assert len(listed) == 1


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """As on two hosts, where process ids may be the same."""
    path = tmp_path / "summary.json"

    def slow(file: IO[bytes]) -> None:
        file.write(b"first ")
        write_whole(path, lambda other: other.write(b"second"))
        assert path.read_bytes() == b"second"
        file.write(b"whole")

    write_whole(path, slow)
    assert path.read_bytes() == b"first whole"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_json_cannot_say_are_null_and_read_as_nan(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.append({"step": 1, "train/loss": math.inf})
    metrics.close()
    assert json.loads(path.read_text()) == {"step": 1, "train/loss": None}
    (row,) = read_rows(path)
    assert row["step"] == 1
    assert math.isnan(row["train/loss"])


def test_a_torn_last_line_is_left_out_and_any_other_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste')
    assert [row["step"] for row in read_rows(path)] == [1, 2]
    path.write_bytes(b'{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        list(read_rows(path))


def test_a_resumed_metrics_file_drops_rows_that_come_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.append({"step": 1})
    length = metrics.sync()["length"]
    metrics.append({"step": 2})
    metrics.close()
    resumed = MetricsFile(path, length)
    resumed.append({"step": 2, "again": 1})
    resumed.close()
    assert list(read_rows(path)) == [{"step": 1}, {"step": 2, "again": 1}]


def test_a_run_that_goes_on_does_not_hold_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes((b" " * 1022 + b"1\n") * 2**14)
    noted = {"length": 2**24, "hash": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}
    tracemalloc.start()
    check_rows(path, noted)
    metrics = MetricsFile(path, noted["length"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert metrics.sync() == noted
    metrics.close()
    assert most < 2**24 / 4
    for other in ({**noted, "length": 2**24 + 1}, {**noted, "length": 2**24 - 1}, {**noted, "hash": "0"}):
        with pytest.raises(ValueError, match="not the one"):
            check_rows(path, other)


def test_an_unknown_schema_is_refused_by_name(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"schema": 99})
    (run,) = find_runs(tmp_path)
    with pytest.raises(ValueError, match="schema version 99 is unknown"):
        _ = run.manifest


@pytest.mark.parametrize(("written", "said"), [("running", "unfinished"), ("pruned", "pruned")])
def test_a_run_without_summary_says_what_it_is(tmp_path: Path, written: str, said: str) -> None:
    write_json(tmp_path / "manifest.json", {"schema": SCHEMA, "status": written})
    assert Run(tmp_path).status == said
    assert list(Run(tmp_path).rows()) == []
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_runs(tmp_path / "nowhere")


def test_a_run_of_schema_1_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"schema": 1, "status": "running", "id": "1a2b3c4d"})
    assert Run(tmp_path).manifest["id"] == "1a2b3c4d"
    assert SCHEMA == 2


def test_the_processor_has_a_name() -> None:
    assert cpu_model() not in ("", "x86_64", "aarch64", "arm64")
