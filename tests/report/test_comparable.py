"""What may be compared and pooled, and what tables say where it may not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_runs import eight, make_run, report

from vrbench.report import cautions, comparable, page, paper
from vrbench.report.arms import Arm, seeds_text
from vrbench.report.collect import collect
from vrbench.report.compare import compare, overall, pick
from vrbench.report.smallest import Smallest
from vrbench.report.study import print_study

SEEDS = range(8)


def two_arms(root: Path, a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Arm, Arm]:
    """The arms of two runs with these options."""
    make_run(root, 0.5, **{"optimizer": "vradam", "study": "a", **a})
    make_run(root, 0.5, **{"optimizer": "adamw", "study": "b", **b})
    (first,), (second,) = collect([root / "a"]), collect([root / "b"])
    return first, second


def differing(root: Path, a: Mapping[str, Any], b: Mapping[str, Any], *allow: str) -> list[str]:
    """What stands in the way of comparing two arms with these options."""
    return [str(one) for one in comparable.obstacles(*two_arms(root, a, b), allow)]


def tuned(**space: Any) -> dict[str, Any]:
    """What a manifest says of a search of this space."""
    return {
        "search": "digits-mlp-x-1", "trials": 16, "budget": 16, "sampler": "tpe", "seeds": [1000], "metric": None,
        "space": space, "params": dict.fromkeys(space, 0.1), "edges": [],
    }  # fmt: skip


# ---- what may be compared -------------------------------------------------------------------------------------------


def test_arms_that_differ_in_more_than_the_optimizer_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three times the epochs and a schedule: 'better, p = 0.0078' of vrbench before November 2026."""
    warmed = {"schedule._target_": "vrbench.training.schedules.warmup_cosine", "schedule.warmup_epochs": 5.0}
    eight(tmp_path, 0.9, "vradam", overrides={"trainer.epochs": 3, **warmed}, choices={"schedule": "warmup_cosine"})
    eight(tmp_path, 0.8, "adamw")
    line = report(capsys, "compare", "vradam", "adamw", tmp_path, code=2)
    assert line == (
        "vrbench-report: digits mlp: schedule: warmup_cosine against constant; trainer.epochs: 3 against 1; "
        "--allow schedule,trainer.epochs compares them all the same"
    )
    half = report(capsys, "compare", "vradam", "adamw", tmp_path, "--allow", "schedule", code=2)
    assert "schedule:" not in half
    assert half.endswith("trainer.epochs: 3 against 1; --allow schedule,trainer.epochs compares them all the same")

    let = json.loads(
        report(capsys, "compare", "vradam", "adamw", tmp_path, "--allow", "schedule,trainer.epochs", "--format", "json")
    )
    assert let["rows"][0]["verdict"] == "better"
    assert let["rows"][0]["let_differ"] == "schedule: warmup_cosine against constant; trainer.epochs: 3 against 1"
    (note,) = [note for note in let["notes"] if note.startswith("Let differ")]
    assert "trainer.epochs: 3 against 1" in note
    (unknown,) = [report(capsys, "compare", "vradam", "adamw", tmp_path, "--allow", "trainer.epoch", code=2)]
    assert unknown == "vrbench-report: allow=trainer.epoch: no run has such a key"


def test_the_optimizer_alone_may_differ(tmp_path: Path) -> None:
    assert differing(tmp_path, {"settings": {"lr": 0.1, "beta3": 1.0}}, {"settings": {"eps": 1e-6}}) == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"trainer.epochs": 3}, "trainer.epochs: 3 against 1"),
        ({"trainer.max_steps": 10}, "trainer.max_steps: 10 against nothing"),
        ({"trainer.eval_every": 5}, "trainer.eval_every: 5 against nothing"),
        ({"task.batch_size": 64}, "task.batch_size: 64 against nothing"),
        ({"task.data.fraction": 0.1234567891}, "task.data.fraction: 0.1234567891 against nothing"),
        ({"model.width": 8}, "model.width: 8 against nothing"),
        ({"model._target_": "mine.MLP"}, "model._target_: mine.MLP against vrbench.models.mlp"),
    ],
    ids=str,
)
def test_every_key_that_decides_numbers_counts(tmp_path: Path, overrides: dict[str, Any], says: str) -> None:
    assert differing(tmp_path, {"overrides": overrides}, {}) == [says]
    (tmp_path / "other").mkdir()
    assert differing(tmp_path / "other", {"overrides": overrides}, {}, next(iter(overrides))) == []


@pytest.mark.parametrize("key", ["trainer.device", "trainer.threads", "trainer.log_every", "logger.wandb", "probe.eos"])
def test_keys_that_decide_nothing_do_not_count(tmp_path: Path, key: str) -> None:
    assert differing(tmp_path, {"overrides": {key: 7}}, {}) == []


def test_whole_and_broken_numbers_are_the_same_number(tmp_path: Path) -> None:
    whole, broken = ({"trainer.clip": one, "task.sizes": [one, 2]} for one in (1, 1.0))
    assert differing(tmp_path, {"overrides": whole}, {"overrides": broken}) == []
    (tmp_path / "x").mkdir()
    assert differing(tmp_path / "x", {"overrides": {"trainer.clip": 1}}, {"overrides": {"trainer.clip": True}}) == [
        "trainer.clip: 1 against True"
    ]


def test_data_count_by_content(tmp_path: Path) -> None:
    def options(place: str, content: str) -> dict[str, Any]:
        return {"overrides": {"task.data.path": f"/{place}/cifar10"}, "data": {"task.data.path": content * 16}}

    assert differing(tmp_path, options("here", "ab"), options("there", "ab")) == []
    (tmp_path / "x").mkdir()
    assert differing(tmp_path / "x", options("same", "ab"), options("same", "cd")) == [
        "task.data.path: data:abababab against data:cdcdcdcd"
    ]
    old = {"schema": 1, "overrides": {"task.data.path": "/here/cifar10"}}
    (tmp_path / "old").mkdir()
    assert differing(tmp_path / "old", old, {**old, "overrides": {"task.data.path": "/there/cifar10"}}) == []


def test_data_in_a_list_count_by_content(tmp_path: Path) -> None:
    def options(content: str) -> dict[str, Any]:
        return {"overrides": {"task.data.files": ["/a", "/b"]}, "data": {"task.data.files.1": content * 16}}

    assert differing(tmp_path, options("ab"), options("ab")) == []
    (tmp_path / "x").mkdir()
    (line,) = differing(tmp_path / "x", options("ab"), options("cd"))
    assert line.startswith("task.data.files: ")


def test_searched_keys_may_differ(tmp_path: Path) -> None:
    a = {"overrides": {"schedule.warmup": 3, "trainer.clip": 1.0}, "tuned": tuned(**{"schedule.warmup": [1, 3]})}
    assert differing(tmp_path, a, {}) == ["trainer.clip: 1.0 against nothing"]
    (tmp_path / "x").mkdir()
    assert differing(tmp_path / "x", {}, a) == ["trainer.clip: nothing against 1.0"]  # whichever of the two was tuned


def test_the_schedule_may_be_what_is_compared(tmp_path: Path) -> None:
    longer = {"optimizer": "adamw", "overrides": {"schedule.warmup": 3}}
    assert differing(tmp_path, longer, {}) == []
    for number, (options, says) in enumerate(
        [
            ({**longer, "settings": {"lr": 0.5}}, ["schedule.warmup: 3 against nothing"]),
            ({**longer, "overrides": {"schedule.warmup": 3, "trainer.epochs": 2}},
             ["schedule.warmup: 3 against nothing", "trainer.epochs: 2 against 1"]),
            ({**longer, "settings": {"lr": 0.5}, "tuned": tuned(**{"optimizer.lr": [0.5]})}, []),
        ]
    ):  # fmt: skip
        (tmp_path / str(number)).mkdir()
        assert differing(tmp_path / str(number), options, {}) == says


def test_a_name_covers_what_lies_below_it_and_nothing_else(tmp_path: Path) -> None:
    a = {"overrides": {"task.data.size": 3, "task.data_too": 3}}
    assert differing(tmp_path, a, {}, "task.data") == ["task.data_too: 3 against nothing"]


def test_tables_say_why_and_leave_such_rows_out_of_the_family(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eight(tmp_path, 0.8, "adamw")
    eight(tmp_path, 0.9, "vradam")
    eight(tmp_path, 0.9, "sgd", overrides={"trainer.epochs": 3})
    shown = json.loads(report(capsys, "table", tmp_path, "--baseline", "adamw", "--format", "json"))
    rows = {row["optimizer"]: row for row in shown["rows"]}
    assert rows["sgd"]["verdict"] == "not comparable"
    assert rows["sgd"]["not_comparable"] == "trainer.epochs: 3 against 1"
    assert rows["sgd"]["p"] is rows["sgd"]["difference"] is None
    assert rows["vradam"]["p_holm"] == rows["vradam"]["p"] == 2 / 256  # a family of one
    assert any("over the 1 comparison of the family" in note for note in shown["notes"])
    assert rows["sgd"]["settings"] == "trainer.epochs=3"  # told across optimizers
    assert rows["adamw"]["settings"] == "trainer.epochs=1"
    markdown = report(capsys, "table", tmp_path, "--baseline", "adamw")
    assert "| not comparable: trainer.epochs |" in markdown
    allowed = json.loads(
        report(capsys, "table", tmp_path, "--baseline", "adamw", "--allow", "trainer", "--format", "json")
    )
    assert [row["verdict"] for row in allowed["rows"]] == [None, "better", "better"]
    assert report(capsys, "table", tmp_path, "--allow", "trainer", code=2).endswith("without --baseline")

    text = page.render(collect([tmp_path]))
    assert '<li class="not-comparable"><strong>not comparable</strong> <span>digits, mlp: trainer.epochs</span>' in text


def test_a_comparison_that_may_not_be_made_counts_nowhere(tmp_path: Path) -> None:
    a, b = two_arms(tmp_path, {"overrides": {"trainer.epochs": 3}}, {})
    (found,) = compare([(a, b)], "test", Smallest())
    assert (found.verdict.word, found.judged) == ("not comparable", False)
    assert sum(overall([found]).counts.values()) == 0
    assert math.isnan(overall([found]).improvement.value)


def test_the_paper_says_why_nothing_can_be_said(tmp_path: Path) -> None:
    for optimizer, epochs in (("vradam", 3), ("adamw", 1)):
        losses = {"task": "pydoc", "metric": "loss", "direction": "min", "overrides": {"trainer.epochs": epochs}}
        eight(tmp_path, 0.5, optimizer, **losses)
    text = paper.write(collect([tmp_path]), tmp_path / "paper.md").read_text()
    assert "nothing can be said: not comparable: trainer.epochs" in text
    assert "trainer.epochs: 3 against 1" in text


def test_the_paper_says_which_arms_it_cannot_choose_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for optimizer in ("vradam", "adamw", "sgd"):
        eight(tmp_path, 0.5, optimizer, task="pydoc", metric="loss", direction="min")
    eight(tmp_path, 0.5, "sgd", task="pydoc", metric="loss", direction="min", settings={"lr": 0.5})
    text = paper.write(collect([tmp_path]), tmp_path / "paper.md").read_text()
    assert "| AdamW |" in text
    assert "| SGD" not in text
    assert "sgd lr=0.001; pydoc mlp sgd lr=0.5" in capsys.readouterr().err


def test_an_arm_is_named_by_some_of_its_settings(tmp_path: Path) -> None:
    for epochs in (1, 2):
        for lr in (0.1, 0.2):
            make_run(tmp_path, 0.5, settings={"lr": lr}, overrides={"trainer.epochs": epochs})
    arms = collect([tmp_path])
    assert arms[0].label == "vradam lr=0.1 trainer.epochs=1"
    assert pick(arms, "vradam trainer.epochs=2 lr=0.1")[("digits", "mlp")].label == "vradam lr=0.1 trainer.epochs=2"
    with pytest.raises(ValueError, match="names 2 arms"):
        pick(arms, "vradam lr=0.1")
    with pytest.raises(ValueError, match="no such optimizer or label"):
        pick(arms, "vradam lr=0.15")


# ---- what is pooled -------------------------------------------------------------------------------------------------


def test_runs_whose_split_follows_the_seed_are_one_arm(tmp_path: Path) -> None:
    key = "task.data.split_seed"
    for seed in range(3):
        make_run(tmp_path, 0.5, seed=seed, overrides={key: seed}, follows_seed=[key])
        make_run(tmp_path, 0.5, seed=seed, optimizer="adamw", overrides={key: 0})
    adamw, vradam = collect([tmp_path])
    assert len(vradam.runs) == 3
    assert vradam.identity[key] == "${seed}"
    assert (vradam.label, adamw.label) == (f"vradam {key}=${{seed}}", f"adamw {key}=0")
    assert [str(one) for one in comparable.obstacles(vradam, adamw)] == [f"{key}: ${{seed}} against 0"]


def test_one_configuration_under_two_names_is_two_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = {"overrides": {"optimizer._target_": "mine.Optimizer"}}
    make_run(tmp_path, 0.5, optimizer="a", **same)
    make_run(tmp_path, 0.5, optimizer="b", **same)
    make_run(tmp_path, 0.5, optimizer="c", study="s", choices={"schedule": "one"})
    make_run(tmp_path, 0.5, optimizer="c", study="t", choices={"schedule": "two"})
    assert [arm.label for arm in collect([tmp_path / "made"])] == ["a", "b"]
    arms = collect([tmp_path])
    assert [arm.label for arm in arms] == [
        "a schedule=constant", "b schedule=constant", "c schedule=one", "c schedule=two"
    ]  # fmt: skip
    assert capsys.readouterr().err == ""  # nothing was left out
    markdown = report(capsys, "table", tmp_path / "made")
    assert "digits mlp: a and b are the same configuration under 2 names." in markdown
    assert comparable.obstacles(arms[0], arms[2]) == []  # another name for the same schedule is no difference


def test_what_is_left_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2, 5):
        make_run(tmp_path, 0.5, seed=seed, study="again")
        make_run(tmp_path, 0.5, seed=seed)
    make_run(tmp_path, 0.5, seed=7, status="unfinished")
    make_run(tmp_path, 0.5, task="other", seed=3, status="unfinished")
    arms = collect([tmp_path])
    assert capsys.readouterr().err.splitlines() == [
        "vrbench: digits mlp vradam: seeds 0-2, 5 of study made left out: another run has this configuration and seed",
        "vrbench: other mlp vradam: left out with seed 3: no run is over, and its metric is not known yet",
    ]
    assert cautions.notes(arms, "test") == ["Left out, unfinished: digits mlp vradam, seed 7."]
    print_study(tmp_path / "made")
    assert "Left out, unfinished: digits mlp vradam, seed 7." in capsys.readouterr().out


def test_records_of_both_schemas_lie_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0.5, schema=1, overrides={"task.data.path": "/data/cifar10"})
    make_run(tmp_path, 0.5, overrides={"task.data.path": "/data/cifar10"}, data={"task.data.path": "ab" * 16})
    first, second = collect([tmp_path])
    assert {first.settings["schema"], second.settings["schema"]} == {"1", "2"}
    assert [str(one) for one in comparable.obstacles(first, second)] == [
        "task.data.path: cifar10 against data:abababab" if first.settings["schema"] == "1"
        else "task.data.path: data:abababab against cifar10"
    ]  # fmt: skip
    for form in ("markdown", "latex", "csv", "json"):
        report(capsys, "table", tmp_path, "--format", form)
    page.render([first, second])
    assert first.by_seed("test/accuracy") == second.by_seed("test/accuracy") == {0: 0.5}


@pytest.mark.parametrize(
    ("seeds", "shown"), [([3], "seed 3"), ([1, 0], "seeds 0, 1"), ([7, 0, 1, 2, 9], "seeds 0-2, 7, 9"), ([0], "seed 0")]
)
def test_seeds_are_told_in_stretches(seeds: list[int], shown: str) -> None:
    assert seeds_text(seeds) == shown
