"""Keys that parts have got since: a run of before is the run it was, and is compared with runs of today."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import yaml
from conftest import ROOT
from made_runs import make_run

from vrbench.report import comparable
from vrbench.report.collect import collect
from vrbench.runs.added import ADDED, without_added
from vrbench.runs.archive import unpack
from vrbench.runs.identity import identify

BEFORE: dict[str, Any] = {
    "seed": 0,
    "task": {"data": {"_target_": "vrbench.data.images.digits", "split_seed": 0, "train_size": None}},
}


def digits(**data: Any) -> str:
    config = copy.deepcopy(BEFORE)
    config["task"]["data"] |= data
    return identify(config).id


@pytest.mark.parametrize("target", ADDED)
def test_the_parts_take_these_keys(target: str) -> None:
    part = locate(target)
    assert callable(part)
    assert set(ADDED[target]) <= set(inspect.signature(part).parameters)


def test_a_key_that_changes_nothing_leaves_the_run_what_it_was() -> None:
    assert digits(val_size=None, test_size=None) == digits() == digits(val_size="all")
    assert digits(train_size=100, val_size="all", test_size=None) == digits(train_size=100)
    others = [
        digits(val_size=100), digits(test_size=100), digits(val_size=None, train_size=100), digits(train_size=100),
        digits(unknown=None),
    ]  # fmt: skip
    assert len({digits(), *others}) == 6, "validation that follows train_size was whole before"


def test_evaluation_in_float32_is_what_it_was() -> None:
    """A record without the key evaluated in float32, also where it trained in bfloat16."""

    def run(**trainer: Any) -> str:
        return identify(BEFORE | {"trainer": trainer}).id

    assert run(precision="float32", eval_precision=None) == run(precision="float32")
    assert run(precision="float32", eval_precision="float32") == run(precision="float32")
    assert run(precision="bfloat16", eval_precision="float32") == run(precision="bfloat16")
    ways = [(one, other) for one in ("float32", "bfloat16") for other in ("float32", "bfloat16")]
    ids = {run(precision=one, eval_precision=other) for one, other in ways}
    assert len(ids) == 4
    assert run(precision="bfloat16", eval_precision=None) not in {run(precision="bfloat16"), run(precision="float32")}


def test_a_key_counts_that_was_there_before() -> None:
    """hub_images always had test_size, and its ids were made with it."""
    hub = {"task.data._target_": "vrbench.data.images.hub_images", "task.data.test_size": None}
    assert without_added(hub | {"task.data.val_size": None}) == hub
    users = {"task.data._target_": "mine.images", "task.data.val_size": None}
    assert without_added(users) == users


def test_committed_runs_keep_their_ids_with_the_keys_of_today(tmp_path: Path) -> None:
    unpack(ROOT / "results/quickstart/records.tar.xz", tmp_path)
    folders = sorted(path.parent for path in tmp_path.glob("**/manifest.json"))
    with_data = 0
    for folder in folders:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        data = config["task"].get("data", {})
        data |= dict.fromkeys(ADDED.get(data.get("_target_"), ()))
        with_data += "val_size" in data
        recorded = identify(config, data={})  # on the text of the Python that recorded them
        assert folder.name.endswith(f"-{recorded.id}")
    assert with_data


def test_runs_with_and_without_the_keys_may_be_compared(tmp_path: Path) -> None:
    target = {"task.data._target_": "vrbench.data.images.digits", "task.data.train_size": None}
    sizes = {"task.data.val_size": None, "task.data.test_size": None}
    for study, keys in (("old", {}), ("new", sizes), ("cut", sizes | {"task.data.val_size": 50})):
        make_run(tmp_path, 0.5, study=study, optimizer=f"of_{study}", overrides=target | keys)
    old, new, cut = (collect([tmp_path / study])[0] for study in ("old", "new", "cut"))
    assert comparable.obstacles(old, new) == []
    assert [str(one) for one in comparable.obstacles(old, cut)] == ["task.data.val_size: nothing against 50"]
