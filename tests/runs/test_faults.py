"""Full disks, damaged files, half-deleted folders: one line, nothing half-written, and the same command goes on."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from conftest import QUICK
from same_numbers import numbers_of_folder

from vrbench.runs import checkpoint, records
from vrbench.runs.records import CannotWrite, MetricsFile, check_rows, find_runs, read_rows, write_json
from vrbench.training.trainer import Trainer

Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]
SAVING = (*QUICK, "trainer.checkpoint_seconds=0")


def only_run(folder: Path) -> Path:
    (run,) = find_runs(folder)
    return run.directory


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, call: Callable[[], int]) -> None:
    fit = Trainer.fit
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda self, writer, *_: fit(self, writer, lambda: self.step >= step))
        assert call() == 0


@pytest.fixture
def stopped(vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> Path:
    """The folder of a run that was stopped at step 12 of 20, beside the same run unbroken."""
    assert vrbench(*SAVING, "study=unbroken") == 0
    stop_at(12, monkeypatch, lambda: vrbench(*SAVING, "study=broken"))
    capfd.readouterr()
    return only_run(tmp_path / "broken")


def goes_on(folder: Path, vrbench: Call) -> int:
    """Repeat the command; the end must be the unbroken run's. The step that it went on from."""
    assert vrbench(*SAVING, "study=broken") == 0
    assert numbers_of_folder(folder) == numbers_of_folder(folder.parents[1] / "unbroken" / folder.name)
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "manifest.json", "metrics.jsonl", "summary.json"}
    return json.loads((folder / "manifest.json").read_text())["resumed_from_step"] or 0


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [flip, cut, lambda path: path.write_bytes(b"")], ids=["flip", "cut", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    spoil: Callable[[Path], object], stopped: Path, vrbench: Call, capfd: Capture
) -> None:
    spoil(stopped / "checkpoint" / "state.pt")
    assert goes_on(stopped, vrbench) == 11
    first, second = capfd.readouterr().err.strip().splitlines()
    assert f"{stopped.name}: checkpoint state.pt is not used: " in first
    assert second.endswith("goes on from the checkpoint before, at step 11")


def test_without_a_good_checkpoint_the_run_starts_again_and_says_so(
    stopped: Path, vrbench: Call, capfd: Capture
) -> None:
    for name in (checkpoint.FILE, checkpoint.BEFORE):
        flip(stopped / "checkpoint" / name)
    assert goes_on(stopped, vrbench) == 0
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert lines[2].endswith("starts again at step 0")


def test_a_save_keeps_the_one_before_and_a_failed_one_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, {"step": step, "weights": torch.ones(10_000)})
    full_after(20_000, "state.pt", monkeypatch)
    with pytest.raises(CannotWrite, match=r"state\.pt: No space left on device"):
        checkpoint.save(tmp_path, {"step": 4, "weights": torch.ones(10_000)})
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.FILE, checkpoint.BEFORE}
    state, wrong = checkpoint.load(tmp_path, lambda state: None)
    assert state is not None
    assert (state["step"], wrong) == (3, {})
    (tmp_path / checkpoint.FILE).unlink()
    state, _ = checkpoint.load(tmp_path, lambda state: None)
    assert state is not None
    assert state["step"] == 2


def test_rows_that_were_changed_or_lost_take_their_checkpoint_with_them(
    stopped: Path, vrbench: Call, capfd: Capture
) -> None:
    (stopped / "metrics.jsonl").unlink()
    assert goes_on(stopped, vrbench) == 0
    assert capfd.readouterr().err.count("metrics.jsonl is not the one that it was written beside") == 2


def test_a_torn_last_line_is_written_again(stopped: Path, vrbench: Call, capfd: Capture) -> None:
    with open(stopped / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 15, "train/l')
    assert goes_on(stopped, vrbench) == 12
    assert capfd.readouterr().err == ""


def test_rows_are_read_for_a_logger_alone(stopped: Path, vrbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(records, "read_rows", lambda path: pytest.fail("no logger has asked for rows"))
        assert vrbench(*SAVING, "study=broken") == 0
    assert goes_on(stopped, vrbench) == 12


def test_the_length_noted_right_after_a_resume_is_the_files(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.append({"step": 1})
    noted = metrics.sync()
    metrics.append({"step": 2})
    metrics.close()
    resumed = MetricsFile(path, noted["length"])
    assert resumed.sync() == noted
    check_rows(path, noted)
    path.write_text('{"step": 3}\n')
    with pytest.raises(ValueError, match="not the one"):
        check_rows(path, noted)


# ---- no space ------------------------------------------------------------------------------------------------------


class Full:
    """A file that takes so many bytes and no more."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self._file = file
        self.room = room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        fits = data[: self.room]
        self._file.write(fits)
        self.room -= len(fits)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)


def full_after(room: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full once a record of this name has so many bytes."""

    def opened(path: Path, mode: str = "r", **how: Any) -> Any:
        file = open(path, mode, **how)  # noqa: SIM115 - the caller closes it
        return Full(file, room) if Path(path).name.startswith(name) and mode != "rb" else file

    monkeypatch.setattr(records, "open", opened, raising=False)


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "metrics.jsonl", "state.pt", "summary.json"])
def test_a_full_disk_is_one_line_and_no_half_record(
    name: str, vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    assert vrbench(*SAVING, "study=unbroken") == 0
    capfd.readouterr()
    with monkeypatch.context() as patch:
        full_after(100, name, patch)
        assert vrbench(*SAVING, "study=broken") == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("vrbench: ")
    assert f"{name}: No space left on device; " in line
    (folder,) = (tmp_path / "broken").iterdir()
    assert not (folder / "summary.json").exists()
    assert list(folder.rglob("*.tmp")) == []
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    if (folder / "metrics.jsonl").exists():
        assert (folder / "metrics.jsonl").read_bytes()[-1:] in (b"", b"\n")
        list(read_rows(folder / "metrics.jsonl"))
    goes_on(folder, vrbench)


def test_a_full_disk_in_the_middle_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vrbench.contracts import RunInfo
    from vrbench.runs.writer import RunWriter

    run = RunInfo("1", "2", "r", "s", tmp_path, {}, {}, 0)
    with RunWriter.open(run, {}, anew=False, machine={"device": "cpu", "threads": 1}) as writer:
        full_after(50, "samples", monkeypatch)
        with pytest.raises(CannotWrite, match=r"samples\.png: No space left"):
            writer.image(1, torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8), last=True)
    assert list(tmp_path.glob("samples*")) == []


def test_a_results_folder_that_cannot_be_written_is_one_line(vrbench: Call, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "default").write_text("a file where the study's folder should be")
    assert vrbench(*QUICK) != 0
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("vrbench: ")
    assert "default" in line


# ---- folders -------------------------------------------------------------------------------------------------------


def test_scraps_of_a_dead_process_are_removed(stopped: Path, vrbench: Call) -> None:
    (stopped / "summary.json.4711.tmp").write_text('{"stat')
    (stopped / "checkpoint" / "state.pt.4711.tmp").write_bytes(b"half")
    assert goes_on(stopped, vrbench) == 12


def test_a_finished_runs_left_over_checkpoint_is_removed(vrbench: Call, tmp_path: Path, capfd: Capture) -> None:
    assert vrbench(*QUICK) == 0
    folder = only_run(tmp_path)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "state.pt").write_bytes(b"")
    capfd.readouterr()
    assert vrbench(*QUICK) == 0
    assert "skipped" in capfd.readouterr().out
    assert not (folder / "checkpoint").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda run: (run / "manifest.json").unlink(), "is finished, and manifest.json is gone; force=true"),
        (lambda run: (run / "metrics.jsonl").unlink(), "is finished, and metrics.jsonl is gone; force=true"),
        (lambda run: (run / "config.yaml").write_text("{"), "is finished, and config.yaml cannot be read; force=true"),
        (lambda run: (run / "summary.json").write_text("{"), "summary.json: not JSON"),
        (lambda run: write_json(run / "manifest.json", {"schema": 99}), "schema version 99 is unknown"),
    ],
    ids=["manifest", "metrics", "config", "summary", "schema"],
)
def test_a_half_deleted_or_unknown_run_is_named(
    spoil: Callable[[Path], object], says: str, vrbench: Call, tmp_path: Path, capfd: Capture
) -> None:
    assert vrbench(*QUICK) == 0
    folder = only_run(tmp_path)
    spoil(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capfd.readouterr()
    assert vrbench(*QUICK) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert says in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert vrbench(*QUICK, "force=true") == 0


def test_an_unfinished_run_of_another_schema_is_not_touched(stopped: Path, vrbench: Call, capfd: Capture) -> None:
    write_json(stopped / "manifest.json", {"schema": 99})
    assert vrbench(*SAVING, "study=broken") == 2
    assert "schema version 99 is unknown" in capfd.readouterr().err
    assert json.loads((stopped / "manifest.json").read_text()) == {"schema": 99}


# ---- data ----------------------------------------------------------------------------------------------------------


def wiki(folder: Path, cells: Any) -> Path:
    """A text data set in the hub's layout whose training split is `cells` (a pyarrow array), the others of its type."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    others = pyarrow.array(["7"]).cast(cells.type)
    for split, column in {"train": cells, "validation": others, "test": others}.items():
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_bad_text_is_named_before_training(
    tmp_path: Path, vrbench: Call, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    import datasets
    import pyarrow

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    not_utf8 = pyarrow.Array.from_buffers(
        pyarrow.string(), 1, [None, pyarrow.array([0, 2], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"\xff\xfe")]
    )
    torn = wiki(tmp_path / "torn", pyarrow.array(["a"]))
    (torn / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    cases = {
        torn: "train-00000-of-00001.parquet cannot be read",
        wiki(tmp_path / "bytes", not_utf8): "not UTF-8",
        wiki(
            tmp_path / "null", pyarrow.array(["a", None])
        ): "column=text: row 1 (from 0) of train-00000-of-00001.parquet is missing",
        wiki(
            tmp_path / "numbers", pyarrow.array([1, 2])
        ): "column=text: row 0 (from 0) of train-00000-of-00001.parquet is int, not",
    }
    for folder, says in cases.items():
        words = (f"task.data.path={folder}", "task.data.config_name=null", f"study=bad-{folder.name}")
        assert vrbench("task=wikitext2", *words, *QUICK) == 2
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert line.startswith("vrbench: task.data.")
        assert says in line
        assert not (tmp_path / folder.name / "wikitext2").exists()
        assert list(tmp_path.rglob("metrics.jsonl")) == []
