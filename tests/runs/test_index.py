"""The index of many runs: always equal to the folders, and small in memory over ten thousand of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import QUICK, ROOT
from made_runs import make_run

from vrbench.runs import index
from vrbench.runs.records import find_runs


def copy_runs(source: Path, root: Path, number: int) -> None:
    """So many run folders, each with a seed of its own, of one that was really trained."""
    manifest, summary = (json.loads((source / name).read_text()) for name in ("manifest.json", "summary.json"))
    config = (source / "config.yaml").read_text()
    for seed in range(number):
        folder = root / f"study{seed % 7}" / f"{source.name}-{seed}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({**manifest, "seed": seed, "name": folder.name}))
        (folder / "summary.json").write_text(json.dumps(summary))
        own = config.replace("seed: 0\n", f"seed: {seed}\n").replace("lr: 0.001", f"lr: {(seed + 1) / 1e6}")
        (folder / "config.yaml").write_text(own)


def test_the_index_follows_the_folders(vrbench: Callable[..., int], tmp_path: Path) -> None:
    assert vrbench("-m", "optimizer=vradam,adamw", "seed=0,1", *QUICK) == 0
    rows = index.read_index(tmp_path)
    assert [row["directory"] for row in rows] == [
        str(run.directory.relative_to(tmp_path)) for run in find_runs(tmp_path)
    ]
    for row in rows:
        text = (tmp_path / row["directory"] / "config.yaml").read_text()
        leaves = dict(index._leaves(yaml.safe_load(text), ""))
        assert index._config(text) == leaves
        assert all(row[key] == value for key, value in leaves.items() if "." in key)
    (one,) = index.select(rows, {"optimizer": "vradam", "seed": 1, "optimizer.beta3": 1.0, "status": "finished"})
    run = next(run for run in find_runs(tmp_path) if run.directory.name == one["name"])
    assert run.summary is not None
    assert one["val/loss"] == run.summary["metrics"]["val/loss"]
    assert one["best/val/accuracy"] == run.summary["best"]["metrics"]["val/accuracy"]
    with pytest.raises(ValueError, match=r"optimizer\.lrr: no run has such a key"):
        index.select(rows, {"optimizer.lrr": 1})

    file = tmp_path / index.FILE
    before = file.stat().st_mtime_ns
    assert index.read_index(tmp_path) == rows
    assert file.stat().st_mtime_ns == before  # up to date: not written again

    (run.directory / "summary.json").write_text(json.dumps({**run.summary, "status": "diverged"}))
    assert [row["name"] for row in index.select(index.read_index(tmp_path), {"status": "diverged"})] == [one["name"]]
    (run.directory / "summary.json").unlink()
    assert len(index.select(index.read_index(tmp_path), {"status": "unfinished"})) == 1

    for content in (b"", b'{"version": 0}\n', file.read_bytes()[:-30], b"\xff\xfe"):
        file.write_bytes(content)
        assert len(index.read_index(tmp_path)) == 4
        assert len(file.read_bytes().splitlines()) == 5
    os.rename(run.directory, tmp_path.parent / "gone")
    assert len(index.read_index(tmp_path)) == 3


def test_rows_carry_what_arms_are_made_of(tmp_path: Path) -> None:
    code = {"files": {"a.py": "1"}, "libraries": {}}
    change = {"step": 7, "changed": ["a.py"], "at": "now"}
    options = {"overrides": {"task.data.path": "x", "task.data.split_seed": 0}, "data": {"task.data.path": "ab"}}
    make_run(tmp_path, 0.5, study="new", code=code, tuned={"search": "s"}, follows_seed=["task.data.split_seed"],
             code_changes=[change], **options)  # fmt: skip
    make_run(tmp_path, 0.5, study="old", schema=1)
    make_run(tmp_path, 0.5, study="then", test_read=False)
    make_run(tmp_path, 0.5, study="zzz", status="unfinished", seed=1)
    index.read_index(tmp_path)
    _, *lines = (tmp_path / index.FILE).read_text().splitlines()
    former = [
        {key: value for key, value in json.loads(line).items() if key not in ("schema", "code")} for line in lines
    ]
    before = [{"version": 1}, *former]  # the index as vrbench wrote it before schema 2
    (tmp_path / index.FILE).write_text("".join(f"{json.dumps(row)}\n" for row in before))
    for _ in range(2):  # made anew, then taken from the index
        new, old, then, unfinished = index.read_index(tmp_path)
        assert (new["schema"], old["schema"], then["schema"]) == (2, 1, 2)
        assert (new["test_read"], old["test_read"], then["test_read"]) == (True, True, False)
        assert "test_read" not in unfinished
        assert (new["follows_seed"], new["data"]) == (["task.data.split_seed"], {"task.data.path": "ab"})
        assert (new["code"], new["code_changes"]) == (index.digest(code), [change])
        assert new["tuned"] == index.digest({"search": "s"})
        assert not {"follows_seed", "data", "code", "code_changes", "tuned"} & (old.keys() | then.keys())
        assert index.config_of(new)["optimizer._target_"] == "vrbench.optimizers.vradam"
        assert not {"status", "val/loss", "best/val/loss"} & index.config_of(new).keys()


@pytest.mark.parametrize(
    "text",
    ["0", "-3", "10", "0.1", "-0.5", "1.0e-05", "1e-05", "1.5e3", "1.0e+22", "010", "1_000", "+1", "1.", ".5", "12:30",
     "-0", "00.5", "1.2.3", "null", "''", "12345678901234567890"],
)  # fmt: skip
def test_numbers_are_read_as_yaml_reads_them(text: str) -> None:
    for block in (f"key: {text}", f"key: {text}\n"):
        assert repr(index._parsed(block)) == repr(yaml.safe_load(block))


def test_the_command_lists_what_is_selected(
    vrbench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("study=one", *QUICK) == 0
    capsys.readouterr()
    assert index.main([str(tmp_path), "optimizer=vradam", "status=finished"]) == 0
    assert capsys.readouterr().out.split() == [str(run.directory) for run in find_runs(tmp_path)]
    assert index.main([str(tmp_path), "optimizer=sgd"]) == 0
    assert index.main([str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    with pytest.raises(SystemExit) as end:
        index.main(["--help"])
    assert not end.value.code


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's peak memory from /proc")
def test_ten_thousand_runs_in_500_mb(vrbench: Callable[..., int], tmp_path: Path) -> None:
    assert vrbench("study=one", *QUICK) == 0
    (run,) = find_runs(tmp_path)
    many = tmp_path / "many"
    copy_runs(run.directory, many, 10_000)
    script = (
        "import re, sys; from pathlib import Path; from vrbench.runs.index import read_index, select\n"
        "rows = read_index(Path(sys.argv[1]))\n"
        "print(len(rows), len(select(rows, {'optimizer': 'vradam', 'optimizer.lr': 0.004322})))\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024)\n"
    )
    for state in ("missing", "there"):
        command = [sys.executable, "-c", script, str(many)]
        out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        assert out[:2] == ["10000", "1"]
        assert float(out[2]) < 500, f"MB with an index that is {state}"
