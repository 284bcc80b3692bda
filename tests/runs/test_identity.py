"""What makes two runs one: the table of what counts, data by content, numbers by type, and ids that do not collide."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import yaml
from conftest import ROOT

from vrbench.runs import content
from vrbench.runs.identity import decides, differences, identify, local_data, relevant
from vrbench.runs.source import numbers_typed

CONFIG: dict[str, Any] = {
    "seed": 0,
    "study": "a",
    "results_dir": "x",
    "force": False,
    "logger": {"console": {}},
    "probe": {"optim": {}},
    "trainer": {"epochs": 3, "device": "auto", "threads": None, "checkpoint_seconds": 30.0, "log_every": 10},
    "task": {"name": "cifar10", "data": {"path": "uoft-cs/cifar10", "revision": None, "split_seed": 0}},
    "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999]},
}


def changed(key: str, value: object) -> dict[str, Any]:
    config = json.loads(json.dumps(CONFIG))
    node = config
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


def test_an_id_is_stable_across_processes_and_key_order() -> None:
    found = identify(CONFIG)
    assert (found.id, found.arm) == ("5abbc0cf7f654907", "dd96f824b00b5f6e")
    assert identify(dict(reversed(CONFIG.items()))) == found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("study", "b"),
        ("results_dir", "y"),
        ("force", True),
        ("logger", {}),
        ("probe", {"eos": {"every": 5}}),
        ("trainer.device", "cpu"),
        ("trainer.threads", 1),
        ("trainer.checkpoint_seconds", 1.0),
        ("trainer.log_every", 1),
        ("trainer.render_every", 7),
        ("trainer.evaluate_test", False),
        ("trainer.parallel", "fsdp"),
    ],
)
def test_what_decides_no_number_does_not_count(key: str, value: object) -> None:
    assert identify(changed(key, value)) == identify(CONFIG)
    assert not decides(key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trainer.epochs", 4),
        ("trainer.eval_every", 50),
        ("optimizer.lr", 0),
        ("optimizer.betas", [0.9]),
        ("optimizer.betas", []),
        ("task.data.path", "uoft-cs/cifar100"),
        ("task.data.path", "other/cifar10"),
        ("task.data.revision", "0b27149"),
        ("task.name", None),
    ],
)
def test_what_decides_the_numbers_counts(key: str, value: object) -> None:
    assert identify(changed(key, value)).arm != identify(CONFIG).arm
    assert decides(key)


def test_the_seed_and_what_follows_it_tell_runs_of_one_arm_apart() -> None:
    other = changed("seed", 1)
    assert identify(other).id != identify(CONFIG).id
    assert identify(other).arm == identify(CONFIG).arm
    other["task"]["data"]["split_seed"] = 1
    assert identify(other).arm != identify(CONFIG).arm
    follows = ["task.data.split_seed"]
    assert identify(other, follows_seed=follows).arm == identify(CONFIG, follows_seed=follows).arm
    assert identify(other, follows_seed=follows).id != identify(CONFIG, follows_seed=follows).id


@pytest.mark.slow
def test_100_000_configs_have_100_000_ids() -> None:
    configs = ({"seed": seed, "optimizer": {"lr": rate * 1e-5}} for seed in range(100) for rate in range(1000))
    found = [identify(config, data={}) for config in configs]
    assert len({one.id for one in found}) == 100_000
    assert len({one.arm for one in found}) == 1000
    assert all(len(one.id) * 4 >= 64 for one in found)


# ---- local data -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        path = tmp_path / "v1" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "v1" / "images"


def with_data(path: object, key: str = "path") -> str:
    return identify({"seed": 0, "task": {"data": {key: str(path)}}}).id


def copy(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to))


@pytest.mark.parametrize(
    "edit",
    [
        lambda folder: (folder / "dog/1.png").write_bytes(b"dog/1.pnh"),
        lambda folder: (folder / "dog/1.png").unlink(),
        lambda folder: (folder / "dog/1.png").rename(folder / "dog/2.png"),
        lambda folder: (folder / "dog/2.png").write_bytes(b""),
        lambda folder: (folder / "dog/1.png").rename(folder / "cat/3.png"),
    ],
    ids=["one byte", "deleted", "renamed", "empty file", "moved to another class"],
)
def test_folders_of_one_name_and_other_content_are_other_data(
    folder: Path, tmp_path: Path, edit: Callable[[Path], object]
) -> None:
    other = copy(folder, tmp_path / "v2" / "images")
    assert with_data(other) == with_data(folder)
    edit(other)
    assert with_data(other) != with_data(folder)


def test_the_same_data_at_another_place_are_the_same(folder: Path, tmp_path: Path) -> None:
    before = with_data(folder)
    moved = tmp_path / "elsewhere" / "under another name"
    moved.parent.mkdir()
    folder.rename(moved)
    assert with_data(moved) == before
    link = tmp_path / "link"
    link.symlink_to(moved)
    assert with_data(link) == before
    text = tmp_path / "corpus.txt"
    text.write_text("text")
    before = with_data(text)
    assert with_data(text.rename(tmp_path / "elsewhere" / "renamed.txt")) == before


@pytest.mark.parametrize("key", ["path", "val_path", "corpus", "weights", "anything"])
def test_any_key_that_names_a_file_counts_by_content(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("one")
    for name in ("mine", "./mine", str(tmp_path / "mine"), f"file://{tmp_path}/mine"):
        (tmp_path / "mine").write_text("one")
        before = with_data(name, key)
        (tmp_path / "mine").write_text("two")
        assert with_data(name, key) != before, name


def test_lists_and_patterns_of_files_count_by_content(tmp_path: Path) -> None:
    for value in ([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], str(tmp_path / "*.txt")):
        (tmp_path / "a.txt").write_text("a")
        (tmp_path / "b.txt").write_text("b")
        config = {"seed": 0, "task": {"files": value}}
        before = identify(config).id
        (tmp_path / "b.txt").write_text("B")
        assert identify(config).id != before


def test_words_that_are_no_places_do_not_become_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the working directory that happens to be called like a split or a name changes no identity."""
    monkeypatch.chdir(tmp_path)
    config = {"task": {"name": "digits", "train_split": "train", "_target_": "tasks", "separator": ".", "root_of": "/"}}
    for name in ("digits", "train", "tasks"):
        (tmp_path / name).mkdir()
    assert local_data(config) == {}
    assert set(local_data({"task": {"path": "."}})) == {"task.path"}
    odd = {"text": "x" * 5000, "zero": "a\0b", "lines": "a\nb", "other": ["~nobody/x", "*", ""]}
    assert local_data({"task": odd}) == {}


# ---- differences and types ------------------------------------------------------------------------------------------


def test_the_text_that_ships_with_python_counts_by_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version has another; the id of a run on the first recorded one is what it was before the text counted."""
    from pydoc_data import topics

    config = changed("task.data", {"_target_": "vrbench.data.text.pydoc", "val_fraction": 0.1})
    ids = {}
    for text in ("one", "another"):
        monkeypatch.setattr(topics, "topics", {"assert": text})
        content.pydoc_hash.cache_clear()
        ids[text] = identify(config)
        assert set(ids[text].data) == {"task.data._target_"}
    assert ids["one"].id != ids["another"].id
    monkeypatch.setattr(content, "_FIRST_PYDOC", ids["another"].data["task.data._target_"])
    content.pydoc_hash.cache_clear()
    assert identify(config) == identify(config, data={})
    content.pydoc_hash.cache_clear()
    assert local_data(changed("task.data", {"_target_": "mine.pydoc"})) == {}


@pytest.mark.skipif(sys.version_info[:3] != (3, 11, 7), reason="the text of Python 3.11.7")
def test_runs_on_the_first_recorded_text_keep_their_ids() -> None:
    assert content.pydoc_hash() is None


def test_a_difference_is_told_by_its_key() -> None:
    there, asked = (relevant(config, {}) for config in (CONFIG, changed("optimizer.lr", 0.1)))
    assert differences(there, there) == []
    assert differences(there, asked) == ["optimizer.lr: 0.001 there, 0.1 asked for"]


@pytest.mark.parametrize(
    ("target", "key", "given", "taken"),
    [
        ("vrbench.optimizers.vradam.VRAdam", "weight_decay", 0, 0.0),
        ("vrbench.optimizers.vradam.VRAdam", "alpha1", 3, 3.0),
        ("vrbench.optimizers.vradam.VRAdam", "betas", [0, 0.999], [0.0, 0.999]),
        ("torch.optim.AdamW", "weight_decay", 0, 0.0),
        ("torch.optim.SGD", "lr", 1, 1.0),
        ("pytorch_optimizer.Lion", "weight_decay", 0, 0.0),
        ("vrbench.training.schedules.warmup_cosine", "warmup_epochs", 5, 5.0),
        ("vrbench.models.mlp.MLP", "hidden", [64.0], [64]),
    ],
)
def test_numbers_take_the_type_that_the_part_states(target: str, key: str, given: Any, taken: Any) -> None:
    (found,) = numbers_typed({"part": {"_target_": target, key: given}}).items()
    assert found == (f"part.{key}", taken)
    assert repr(found[1]) == repr(taken)
    assert numbers_typed({"part": {"_target_": target, key: taken}}) == {}


def test_a_number_of_no_stated_type_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that tells 1 (one example) from 1.0 (all of them) must get what was given."""
    (tmp_path / "own_part.py").write_text("class Part:\n    def __init__(self, size, share: int | float): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert numbers_typed({"part": {"_target_": "own_part.Part", "size": 1, "share": 1}}) == {}


def parts(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from parts(child)


LENGTHS = {"warmup.warmup", "wsd.decay", "step.at", "inverse_sqrt.timescale", "onecycle.warmup"}
"""Shares of the run, whose whole numbers are steps."""


def is_named(target: str, key: str) -> bool:
    """Whether the target's signature has the argument, and does not pass it on in **kwargs: to SAM's base optimizer."""
    return key in inspect.signature(locate(target)).parameters


@pytest.mark.parametrize(
    "path",
    sorted(
        path for group in ("optimizer", "schedule", "model", "task") for path in (ROOT / "conf" / group).glob("*.yaml")
    ),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_float_of_a_yaml_may_be_given_as_a_whole_number(path: Path) -> None:
    """`optimizer.weight_decay=0` and `=0.0` are one run, whatever part takes it."""
    for part in parts(yaml.safe_load(path.read_text())):
        for key, value in part.items():
            numbers = value if isinstance(value, list) else [value]
            if not all(isinstance(number, float) for number in numbers) or not numbers:
                continue
            whole = [1 for _ in numbers] if isinstance(value, list) else 1
            found = numbers_typed({"part": {"_target_": part["_target_"], key: whole}})
            is_float = is_named(part["_target_"], key) and f"{path.stem}.{key}" not in LENGTHS
            assert bool(found) == is_float, key
