"""A run that has a folder already: what edited code, other data and another look at it come to."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK
from own_rule import OWN, edit, stop_at

from vrbench.runs.records import Run, find_runs
from vrbench.runs.standing import check_study

Call = Callable[..., int]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of an optimizer of one's own; `optimizer=…` for it is in `overrides`."""
    path = tmp_path / "project" / "my_rule.py"
    path.parent.mkdir()
    path.write_text(OWN.replace("SIGN", "1"))
    monkeypatch.syspath_prepend(path.parent)
    sys.modules.pop("my_rule", None)
    return path


def mine(*more: str) -> tuple[str, ...]:
    return ("optimizer=sgd", "optimizer._target_=my_rule.Mine", *QUICK, *more)


def only(root: Path) -> Run:
    (run,) = find_runs(root)
    return run


def manifest(run: Run) -> dict[str, Any]:
    return json.loads((run.directory / "manifest.json").read_text())


# ---- edited code ----------------------------------------------------------------------------------------------------


def test_a_finished_run_of_edited_code_says_so_and_force_changed_trains_it_again(
    own: Path, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*mine()) == 0
    before = only(tmp_path).summary
    assert vrbench(*mine("force=changed")) == 0
    assert "finished already, skipped (force=true trains it again)" in capfd.readouterr().out
    edit(own)
    assert vrbench(*mine()) == 0
    said = capfd.readouterr().out
    assert "finished already, skipped; its code has changed since (my_rule.py): force=changed trains it again" in said
    assert only(tmp_path).summary == before
    assert vrbench(*mine("force=changed")) == 0
    after = only(tmp_path).summary
    assert after is not None
    assert before is not None
    assert after["metrics"]["test/loss"] > before["metrics"]["test/loss"]
    capfd.readouterr()
    assert vrbench(*mine("force=changed")) == 0
    assert "finished already, skipped (force=true trains it again)" in capfd.readouterr().out


def test_an_unfinished_run_of_edited_code_is_refused(
    own: Path, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(12, vrbench, monkeypatch, *mine())
    edit(own)
    capfd.readouterr()
    assert vrbench(*mine()) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "its code has changed since it began (my_rule.py)" in line
    assert "force=changed begins it anew, force=resume goes on knowingly" in line
    assert only(tmp_path).summary is None
    kept = tmp_path / "kept"
    shutil.copytree(only(tmp_path).directory, kept)

    assert vrbench(*mine("force=resume")) == 0
    found = manifest(only(tmp_path / "default"))
    assert found["resumed_from_step"] == 12
    (change,) = found["code_changes"]
    assert (change["step"], change["changed"]) == (12, ["my_rule.py"])

    folder = only(tmp_path / "default").directory
    shutil.rmtree(folder)
    shutil.move(kept, folder)
    assert vrbench(*mine("force=changed")) == 0
    found = manifest(only(tmp_path / "default"))
    assert (found["resumed_from_step"], found["code_changes"]) == (None, [])
    assert next(only(tmp_path / "default").rows())["step"] == 5


def test_a_killed_run_under_force_changed_goes_on(
    own: Path, vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vrbench(*mine()) == 0
    edit(own)
    stop_at(12, vrbench, monkeypatch, *mine("force=changed"))
    assert vrbench(*mine("force=changed")) == 0
    assert manifest(only(tmp_path))["resumed_from_step"] == 12


def test_force_changed_trains_the_edited_arm_of_a_sweep_alone(own: Path, vrbench: Call, tmp_path: Path) -> None:
    sweep = ("-m", "optimizer=sgd,adamw", "seed=0,1", *QUICK)
    rule = ("-m", "optimizer=sgd", "optimizer._target_=my_rule.Mine", "seed=0,1", *QUICK)
    assert vrbench(*sweep) == vrbench(*rule) == 0
    ended = {run.directory: (run.directory / "summary.json").stat().st_mtime_ns for run in find_runs(tmp_path)}
    assert len(ended) == 6
    edit(own)
    assert vrbench(*sweep, "force=changed") == vrbench(*rule, "force=changed") == 0
    again = {path for path, time in ended.items() if (path / "summary.json").stat().st_mtime_ns != time}
    assert {Run(path).manifest["code"]["files"]["my_rule.py"] is not None for path in again} == {True}
    assert len(again) == 2


def test_the_manifest_names_the_code_and_the_project(
    own: Path, vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vrbench.runs import records

    records.git_state.cache_clear()
    monkeypatch.chdir(own.parent)
    for command in ("init -q", "add .", "-c user.name=x -c user.email=x@y commit -qm x"):
        assert os.system(f"git {command}") == 0
    assert vrbench(*mine()) == 0
    found = manifest(only(tmp_path / "default"))
    assert found["schema"] == 2
    assert "my_rule.py" in found["code"]["files"]
    assert "torch" in found["versions"]
    assert {"pytorch-optimizer", "diffusers", "optuna", "scikit-learn", "tokenizers"} <= found["versions"].keys()
    assert len(found["git"]["sha"]) == 40
    assert found["git"]["sha"] != found["vrbench_git"]["sha"]
    assert found["machine"]["cpu"] != "x86_64"
    assert found["machine"]["gpu"] is None
    records.git_state.cache_clear()


# ---- another config under the same id, another place, another seed --------------------------------------------------


def test_a_folder_that_holds_another_config_is_refused_by_key(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*QUICK) == 0
    path = only(tmp_path).directory / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["optimizer"]["lr"] = 0.5
    path.write_text(yaml.safe_dump(config))
    capfd.readouterr()
    assert vrbench(*QUICK) == 2
    assert "holds a run of another config (optimizer.lr: 0.5 there, 0.001 asked for)" in capfd.readouterr().err
    assert vrbench(*QUICK, "force=true") == 0


def test_force_trains_over_an_unfinished_run_of_another_config(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(12, vrbench, monkeypatch, *QUICK)
    path = only(tmp_path).directory / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 0.5"))
    assert vrbench(*QUICK) == 2
    assert vrbench(*QUICK, "force=true") == 0
    assert manifest(only(tmp_path))["resumed_from_step"] is None


def test_numbers_are_typed_before_they_are_hashed(vrbench: Call, tmp_path: Path) -> None:
    for value in ("0", "0.0", "0.", "0e0"):
        assert vrbench("optimizer=adamw", f"optimizer.weight_decay={value}", *QUICK) == 0
    assert len(find_runs(tmp_path)) == 1
    assert (
        repr(yaml.safe_load((only(tmp_path).directory / "config.yaml").read_text())["optimizer"]["weight_decay"])
        == "0.0"
    )
    for value in ("3", "3.0"):
        assert vrbench("optimizer.alpha1=" + value, f"trainer.clip_norm={value}", *QUICK) == 0
    assert len(find_runs(tmp_path)) == 2


def test_what_follows_the_seed_is_one_arm(vrbench: Call, tmp_path: Path) -> None:
    assert vrbench("-m", "seed=0,1", "task.data.split_seed=${seed}", *QUICK) == 0
    found = [manifest(run) for run in find_runs(tmp_path)]
    assert len({one["id"] for one in found}) == 2
    assert len({one["arm"] for one in found}) == 1
    assert all(one["follows_seed"] == ["task.data.split_seed"] for one in found)
    assert {one["label"] for one in found} == {"vradam trainer.max_steps=20 trainer.eval_every=10"}


# ---- another look at the same run -----------------------------------------------------------------------------------


def test_what_decides_no_number_finds_the_finished_run(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*QUICK) == 0
    looks = ("trainer.log_every=1", "trainer.render_every=3", "trainer.device=cpu", "task.eval_batch_size=7")
    for look in looks:
        assert vrbench(*QUICK[:3], look) == 0
    assert len(find_runs(tmp_path)) == 1
    assert capfd.readouterr().out.count("finished already, skipped") == len(looks)


def test_a_probe_that_the_finished_run_had_not_is_told(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("probe=none", *QUICK) == 0
    before = [(row["step"], row["train/loss"]) for row in only(tmp_path).rows()]
    assert vrbench("probe=eos", *QUICK) == 0
    assert "finished without probe optim and eos: force=true measures it" in capfd.readouterr().out
    eos = ("probe=eos", "probe.eos.size=64", "probe.eos.microbatch=64", "probe.eos.every=10")
    assert vrbench(*eos, *QUICK, "force=true") == 0
    assert [(row["step"], row["train/loss"]) for row in only(tmp_path).rows()] == before
    capfd.readouterr()
    assert vrbench(*eos, "probe.eos.every=5", *QUICK) == 0
    assert "finished with other settings of probe eos: force=true measures it again" in capfd.readouterr().out


def test_an_unfinished_run_goes_on_with_another_probe(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vrbench("study=whole", *QUICK) == 0
    stop_at(12, vrbench, monkeypatch, "study=broken", "probe=none", *QUICK)
    assert vrbench("study=broken", *QUICK) == 0
    whole, broken = only(tmp_path / "whole"), only(tmp_path / "broken")
    assert whole.summary is not None
    assert broken.summary is not None
    assert broken.summary["metrics"] == whole.summary["metrics"]
    assert ["optim/lr" in row for row in broken.rows()] == [False, False, True, True]


# ---- local data -----------------------------------------------------------------------------------------------------


def pictures(folder: Path, shade: int) -> None:
    from PIL import Image

    for number in range(24):
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (shade, 10 * number, 5)).save(path)


def test_other_pictures_in_a_folder_of_the_same_name_are_another_run(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    pictures(data / "a" / "images", 10)
    pictures(data / "b" / "images", 200)
    command = (
        "task=imagefolder",
        "model=mlp",
        "task.data.image_size=8",
        "task.batch_size=4",
        "task.crop_padding=0",
        *QUICK,
    )
    assert vrbench("-m", f"task.data.path={data}/a/images,{data}/b/images", *command, "study=two") == 0
    first, second = find_runs(tmp_path / "two")
    assert first.summary is not None
    assert second.summary is not None
    assert first.summary["metrics"]["val/loss"] != second.summary["metrics"]["val/loss"]

    (data / "a" / "images" / "class0" / "0.png").unlink()
    assert vrbench(f"task.data.path={data}/a/images", *command, "study=two") == 0
    assert len(find_runs(tmp_path / "two")) == 3
    shutil.move(data / "b", data / "moved")
    capfd.readouterr()
    assert vrbench(f"task.data.path={data}/moved/images", *command, "study=two") == 0
    assert "finished already, skipped" in capfd.readouterr().out


def test_an_edit_that_restores_size_and_time_is_trained_on(tmp_path: Path) -> None:
    """No cache of decoded pixels or of tables is fooled."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vrbench.data.images import image_folder
    from vrbench.data.text import hub

    def put_back(path: Path, state: os.stat_result) -> None:
        os.truncate(path, state.st_size)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    def read() -> Any:
        return image_folder(str(folder), 8, 0.2, 0.2, 0, None).images["train"].numpy()

    folder = tmp_path / "images"
    pictures(folder, 10)
    before, states = read(), {path: path.stat() for path in folder.rglob("*.png")}
    pictures(folder, 60)
    for path, state in states.items():
        put_back(path, state)
    assert not np.array_equal(before, read())

    table = tmp_path / "text" / "train.parquet"
    table.parent.mkdir()
    for split in ("train", "validation", "test"):
        pq.write_table(pa.table({"text": ["aaaa"]}), table.with_name(f"{split}.parquet"))
    assert list(hub(str(table.parent), None, "text").train) == ["aaaa"]
    state = table.stat()
    pq.write_table(pa.table({"text": ["bbbb"]}), table)
    put_back(table, state)
    assert list(hub(str(table.parent), None, "text").train) == ["bbbb"]


@pytest.mark.parametrize("task", ["text"])
def test_other_text_under_the_same_name_is_another_run(task: str, vrbench: Call, tmp_path: Path) -> None:
    for name, word in (("a", "one two three "), ("b", "four five six ")):
        path = tmp_path / name / "corpus.txt"
        path.parent.mkdir()
        path.write_text("\n".join([word * 20] * 60))
        small = ("task/tokenizer=char", "task.context=16", "task.batch_size=4", "model.width=16", "model.heads=2")
        assert vrbench(f"task={task}", f"task.data.path={path}", *small, *QUICK, "study=text") == 0
    assert len(find_runs(tmp_path / "text")) == 2


@pytest.mark.parametrize(
    ("study", "says"),
    [
        ("s/search", "s keeps what is not runs in its search"),
        ("s/report", "s keeps what is not runs in its report"),
        ("s/run-1", None),
        ("s/run-0/more", "s/run-0 is a run"),
        ("S", "there is a s,"),
        ("s/LR", "there is a s/lr,"),
        ("s/lr", None),
        ("s/search/more", None),
        ("t", None),
    ],
)
def test_studies_that_would_be_taken_for_others(study: str, says: str | None, tmp_path: Path) -> None:
    for folder in ("s/lr", "s/run-0"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "s/run-0/manifest.json").write_text("{}")
    if says is None:
        check_study(study, tmp_path)
        return
    with pytest.raises(ValueError, match=f"^study={study}: {re.escape(says)}"):
        check_study(study, tmp_path)


def test_a_study_of_other_capitals_is_refused_before_anything_is_written(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("study=lr", *QUICK) == 0
    assert vrbench("study=LR", *QUICK) == 2
    assert "study=LR: there is a lr, and where capital letters do not count" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lr"]
