"""The kit itself: it fails on what is broken, skips what is absent and nothing else, and holds to its waivers."""

from __future__ import annotations

import inspect
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from vrbench.app import check
from vrbench.app.check import GROUPS, Kit, checks_of, properties_of
from vrbench.checks.contract import Absent, absence, same
from vrbench.extras import needs

HEADS = {
    "optimizer": "_target_: contracts.broken_parts.{name}\n_partial_: true\nlr: 0.1\n",
    "schedule": "_target_: contracts.broken_parts.{name}\n_partial_: true\nwarmup: 0\nfloor: 0.0\n",
    "model": "_target_: contracts.broken_parts.{name}\n_partial_: true\n",
    "probe": "mine:\n  _target_: contracts.broken_parts.{name}\n",
    "logger": "mine:\n  _target_: contracts.broken_parts.{name}\n",
    "task/tokenizer": "_target_: contracts.broken_parts.{name}\n",
    "task": (ROOT / "conf/task/digits.yaml").read_text().replace(
        "vrbench.tasks.image_classification.ImageClassification", "contracts.broken_parts.{name}"
    ),
}  # fmt: skip
BROKEN = [
    ("optimizer", "OneRate", "groups_have_their_own_rate"),
    ("optimizer", "Forgetful", "resumes_bit_for_bit"),
    ("optimizer", "UndefinedOptimizer", "converges_on_a_quadratic"),
    ("schedule", "negative", "is_never_negative"),
    ("schedule", "one_peak", "groups_keep_their_own_peak"),
    ("schedule", "StatelessSchedule", "resumes_exactly"),
    ("schedule", "too_high", "never_exceeds_the_peak"),
    ("schedule", "too_high", "warms_up_as_it_says"),
    ("schedule", "too_high", "ends_at_its_floor"),
    ("task", "UndefinedTask", "says_what_it_is"),
    ("task", "Leaking", "splits_are_disjoint"),
    ("task", "OwnOrder", "batches_follow_their_generators"),
    ("task", "DeafToStart", "a_late_start_leaves_the_rest_as_it_is"),
    ("task", "OwnNoise", "the_loss_draws_from_its_generator_alone"),
    ("task", "Undifferentiable", "the_loss_is_a_scalar_to_differentiate"),
    ("task", "RandomEvaluation", "evaluation_is_the_same_every_time"),
    ("task", "HeavyProbeSet", "the_probe_set_is_fixed"),
    ("model", "BrokenModel", "does_for_a_task"),
    ("model", "Unseeded", "starts_from_its_seed"),
    ("model", "IdleParameter", "gradients_reach_every_parameter"),
    ("model", "HiddenState", "its_state_is_the_whole_of_it"),
    ("probe", "Meddling", "changes_no_training_number"),
    ("probe", "Counting", "resumes_bit_for_bit"),
    ("probe", "Unprefixed", "writes_floats_under_keys_of_its_own"),
    ("logger", "FailsOnRows", "takes_a_whole_run"),
    ("logger", "FailsOnDivergence", "takes_a_diverged_run"),
    ("logger", "ChangesRows", "leaves_what_it_is_given"),
    ("task/tokenizer", "Changing", "has_a_key"),
    ("task/tokenizer", "Endless", "ends_documents_with_the_separator"),
    ("task/tokenizer", "Outside", "ids_lie_in_the_vocabulary"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder: Path = tmp_path_factory.mktemp("broken")
    for group, name, _ in BROKEN:
        path = folder / group / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADS[group].format(name=name) if group != "task" else HEADS[group].replace("{name}", name))
    return Kit([folder], ["task.batch_size=8"])


@pytest.mark.parametrize(("group", "name", "property_"), BROKEN)
def test_a_broken_part_fails(group: str, name: str, property_: str, broken: Kit) -> None:
    assert name in broken.choices(group)
    before = threading.active_count()
    (found,) = results(broken, group, name, property_)
    assert found.status == "failed", found
    assert found.reason
    if group == "logger":
        assert threading.active_count() == before  # what it has started is closed


def results(kit: Kit, group: str, choice: str, property_: str) -> list[check.Result]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks_of(group), "PROPERTIES", (properties_of(group)[property_],))
        return list(kit.check(group, choice))


def test_every_kind_has_broken_parts_and_no_property_is_forgotten() -> None:
    assert {group for group, _, _ in BROKEN} == set(GROUPS)
    for group in GROUPS:
        module = checks_of(group)
        (part,) = {hint for name, hint in _first_arguments(module).items() if name in properties_of(group)}
        there = {name for name, hint in _first_arguments(module).items() if hint == part and name != "begin"}
        assert there == properties_of(group).keys()
        assert all(one.__doc__ for one in module.PROPERTIES)


def _first_arguments(module: Any) -> dict[str, str]:
    """The public functions of a module that take one argument without a default, and its annotation."""
    found = {}
    for name, one in vars(module).items():
        if inspect.isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_"):
            hints = [str(argument.annotation) for argument in inspect.signature(one).parameters.values()]
            found[name] = hints[0] if hints else ""
    return found


# ---- absent or broken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "choice", "property_", "says"),
    [
        ("task", "cifar10", "says_what_it_is", "uoft-cs/cifar10"),
        ("task", "wikitext2", "says_what_it_is", "Salesforce/wikitext"),
        ("task/tokenizer", "gpt2", "has_a_key", "not on this machine"),
    ],
)
def test_data_of_a_hub_are_absent_by_name(group: str, choice: str, property_: str, says: str) -> None:
    (found,) = results(Kit(), group, choice, property_)
    assert found.status == "absent"
    assert says in found.reason


def test_only_what_is_absent_is_absent() -> None:
    def chained(*errors: Exception) -> Exception:
        for error, cause in itertools.pairwise(errors):
            error.__cause__ = cause
        return errors[0]

    missing = ModuleNotFoundError("No module named 'diffusers'", name="diffusers.models")
    assert absence(chained(ValueError("x"), missing)) == needs("diffusers")
    assert absence(chained(ValueError("x"), ConnectionError("Couldn't reach it"))) is not None
    typo = ModuleNotFoundError("No module named 'trch'", name="trch")
    for wrong in (NameError("n"), RuntimeError("r"), FileNotFoundError("path=/nowhere"), ValueError("v"), typo):
        assert absence(chained(ValueError("x"), wrong)) is None
    looped = ValueError("a")
    looped.__cause__ = chained(ValueError("b"), looped)
    assert absence(looped) is None


def test_equal_is_equal_bit_for_bit() -> None:
    import torch

    nan, zero = torch.tensor([1.0, float("nan")]), torch.zeros(2)
    assert same({"a": [nan, 1, None]}, {"a": (nan.clone(), 1, None)})
    assert same(float("nan"), float("nan"))
    for other in (zero, nan.double(), nan[:1], [1.0, float("nan")], torch.tensor([float("nan"), 1.0])):
        assert not same(nan, other)
    assert not same({"a": 1}, {"b": 1})
    assert not same([1, 2], [1])


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_says_what_came_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schedule").mkdir()
    (tmp_path / "schedule/mine.yaml").write_text(HEADS["schedule"].format(name="negative"))
    assert check.main(["--config-dir", str(tmp_path), "schedule=constant"]) == 0
    assert "schedule=constant resumes_exactly: ok\n" in capsys.readouterr().out
    assert check.main(["--config-dir", str(tmp_path), "schedule=mine", "schedule=constant"]) == 1
    said = capsys.readouterr().out
    assert "schedule=mine is_never_negative: failed step 201 is taken with rates" in said
    assert check.main(["schedule=mine"]) == 2
    assert "vrbench: schedule=mine: no such choice; " in capsys.readouterr().err
    assert check.main(["trainer.epochs=1"]) == 2
    assert "name a part: optimizer=…, task=…" in capsys.readouterr().err


def test_a_waiver_excuses_a_property_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = results(Kit(), "optimizer", "muon", "leaves_gradients_alone")
    assert (found.status, found.is_wrong) == ("waived", False)
    monkeypatch.setattr(check, "waivers", lambda: {"schedule": {"constant": {"is_never_negative": "for a test"}}})
    (found,) = results(Kit(), "schedule", "constant", "is_never_negative")
    assert (found.status, found.is_wrong) == ("unneeded", True)


def test_a_part_that_is_absent_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*arguments: Any) -> Any:
        raise Absent("gone")

    kit = Kit()
    monkeypatch.setattr(kit, "part", raises)
    assert {(one.status, one.reason) for one in kit.check("model", "mlp")} == {("absent", "gone")}
