"""Run identity and the files of a run folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from vrbench.records import SCHEMA, MetricsFile, Run, find_runs, identify, read_rows, write_json, write_whole

CONFIG = {
    "seed": 0,
    "study": "a",
    "results_dir": "x",
    "force": False,
    "logger": {"console": {}},
    "trainer": {"epochs": 3, "device": "auto", "threads": None, "checkpoint_seconds": 30.0},
    "task": {"name": "cifar10", "data": {"path": "uoft-cs/cifar10"}},
    "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999]},
}


def changed(key: str, value: object) -> dict[str, object]:
    config = json.loads(json.dumps(CONFIG))
    node = config
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


def test_the_identity_is_stable_across_processes_and_key_order() -> None:
    assert identify(CONFIG) == ("5d09f344", "0cc64b88")
    assert identify(dict(reversed(CONFIG.items()))) == identify(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("study", "b"),
        ("results_dir", "y"),
        ("force", True),
        ("logger", {}),
        ("trainer.device", "cpu"),
        ("trainer.threads", 1),
        ("trainer.checkpoint_seconds", 1.0),
        ("task.data.path", "/somewhere/else/cifar10"),
    ],
)
def test_places_logging_and_hardware_do_not_count(key: str, value: object) -> None:
    assert identify(changed(key, value)) == identify(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [("trainer.epochs", 4), ("optimizer.lr", 0), ("task.data.path", "cifar100"), ("optimizer.betas", [0.9])],
)
def test_what_decides_the_numbers_counts(key: str, value: object) -> None:
    assert identify(changed(key, value))[1] != identify(CONFIG)[1]


def test_the_seed_tells_runs_of_one_arm_apart() -> None:
    (first, arm), (second, same_arm) = identify(CONFIG), identify(changed("seed", 1))
    assert first != second
    assert arm == same_arm


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
