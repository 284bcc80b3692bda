"""Several tunings of one method: pooled into one arm, compared by replicate, looked at more than once, controlled."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.made_runs import make_run, report
from vrbench.report import page
from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.compare import compare, judge, pick, sides
from vrbench.report.looks import FILE, Looks
from vrbench.report.pairs import bad_runs, pair_replicates
from vrbench.report.smallest import Smallest

SPACE = {"optimizer.lr": {"low": 0.0001, "high": 0.1, "log": True}}


def tuned(replicate: int, lr: float, **more: Any) -> dict[str, Any]:
    return {"search": f"s{replicate}", "trials": 8, "budget": 8, "sampler": "random", "seeds": [1000 + replicate],
            "metric": None, "space": SPACE, "params": {"optimizer.lr": lr}, "edges": [], "replicate": replicate,
            **more}  # fmt: skip


def method(root: Path, optimizer: str, means: Sequence[float], *, seeds: int = 3, first: int = 0, **more: Any) -> None:
    """A method tuned once for each of the means: every replicate has its own rate and its own confirmation seeds."""
    for replicate, mean in enumerate(means, first):
        lr = 0.001 * (replicate + 1) + (0.0001 if optimizer == "adamw" else 0) + (0.0005 if more.get("control") else 0)
        for seed in range(seeds):
            make_run(root, mean + seed / 1000, optimizer=optimizer, seed=2000 + 100 * replicate + seed,
                     settings={"lr": lr}, tuned=tuned(replicate, lr, **more))  # fmt: skip


def arm(root: Path, name: str) -> Arm:
    (found,) = pick(collect([root]), name).values()
    return found


def test_replicates_are_one_arm(tmp_path: Path) -> None:
    method(tmp_path, "vradam", [0.9, 0.8, 0.7])
    (found,) = collect([tmp_path])
    assert (found.label, sorted(found.parts), len(found.runs)) == ("vradam", [0, 1, 2], 9)
    assert found.by_run("test/accuracy")[1, 2102] == pytest.approx(0.802)
    assert found.parts[2].by_seed("test/accuracy")[2200] == pytest.approx(0.7)
    assert [record["replicate"] for record in found.tuned] == [0, 1, 2]
    assert "optimizer.lr" not in found.identity


def test_two_replicates_that_choose_the_same_are_two(tmp_path: Path) -> None:
    for replicate in (0, 1):
        make_run(tmp_path, 0.5 + replicate / 10, seed=2000 + replicate, tuned=tuned(replicate, 0.001))
    (found,) = collect([tmp_path])
    assert found.by_run("test/accuracy") == {(0, 2000): 0.5, (1, 2001): 0.6}


def test_a_value_that_all_searches_chose_is_no_setting(tmp_path: Path) -> None:
    method(tmp_path, "vradam", [0.9, 0.8])
    for replicate in (0, 1):
        make_run(tmp_path, 0.5, seed=3000 + replicate, tuned=tuned(replicate, 0.001, budget=16))
    assert {found.label.split("=")[0] for found in collect([tmp_path])} == {"vradam arm"}
    assert not any("optimizer.lr" in found.identity for found in collect([tmp_path]))


def test_replicates_may_have_the_same_seeds(tmp_path: Path) -> None:
    for replicate in (0, 1):
        make_run(tmp_path, 0.5 + replicate / 10, tuned=tuned(replicate, 0.001),
                 overrides={"task.data.split_seed": replicate})  # fmt: skip
    (found,) = collect([tmp_path])
    assert found.by_run("test/accuracy") == {(0, 0): 0.5, (1, 0): 0.6}
    assert "task.data.split_seed" not in found.identity


def test_one_tuning_is_an_arm_as_ever(tmp_path: Path) -> None:
    method(tmp_path, "vradam", [0.9])
    make_run(tmp_path, 0.5, seed=5, settings={"lr": 0.001})
    (found,) = collect([tmp_path])
    assert (found.parts, len(found.runs)) == ({}, 4)


def test_other_searches_are_other_methods(tmp_path: Path) -> None:
    method(tmp_path, "vradam", [0.9, 0.8])
    method(tmp_path, "vradam", [0.7, 0.6], first=2, budget=16)
    assert sorted(sorted(found.parts) for found in collect([tmp_path])) == [[0, 1], [2, 3]]


def test_each_replicate_is_one_observation(tmp_path: Path) -> None:
    """Differences of replicate means .1, .2, .3: t = .2 / (.1 / sqrt(3)), and not the p of nine seeds."""
    method(tmp_path, "vradam", [0.9, 0.9, 0.9])
    method(tmp_path, "adamw", [0.8, 0.7, 0.6])
    (found,) = compare([(arm(tmp_path, "vradam"), arm(tmp_path, "adamw"))], "test", Smallest())
    assert found.pairs.gains == pytest.approx((0.1, 0.2, 0.3))
    t = 2 * math.sqrt(3)
    assert found.verdict.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert (found.verdict.test, found.verdict.unit, found.pairs.seeds, found.pairs.units) == ("t", "replicate", 9, 3)
    assert (found.pairs.difference, found.pairs.median) == pytest.approx((0.2, 0.2))
    assert found.pairs.interval.high - 0.2 == pytest.approx(4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert found.pairs.components.tuning == pytest.approx(0.1)
    assert (found.pairs.components.seed, found.verdict.scope) == (pytest.approx(0, abs=1e-12), "")


def test_enough_replicates_need_no_normality(tmp_path: Path) -> None:
    method(tmp_path, "vradam", [0.9 + r / 1000 for r in range(6)], seeds=2)
    method(tmp_path, "adamw", [0.8] * 6, seeds=2)
    couple = arm(tmp_path, "vradam"), arm(tmp_path, "adamw")
    (found,) = compare([couple], "test", Smallest())
    assert (found.verdict.test, found.verdict.p, found.verdict.word) == ("sign-flip", 2 / 64, "better")
    (planned,) = compare([couple], "test", Smallest(), planned=2)
    assert (planned.verdict.test, planned.verdict.tests) == ("t", 2)  # 2 / 64 could not clear .05 / 2


def test_one_tuning_beside_several(tmp_path: Path) -> None:
    """The single side's run of the same seed stands beside each replicate, and the verdict says whose tuning it is."""
    method(tmp_path, "vradam", [0.9, 0.8])
    for seed in (2000, 2001, 2100):
        make_run(tmp_path, 0.5, optimizer="adamw", seed=seed, tuned=tuned(0, 0.001))
    a, b = arm(tmp_path, "vradam"), arm(tmp_path, "adamw")
    assert sorted(sides(a, b, "test")[1]) == [(0, 2000), (0, 2001), (1, 2100)]
    (found,) = compare([(a, b)], "test", Smallest())
    assert found.verdict.scope == "for this tuning of adamw"


def test_what_must_agree_is_asked_replicate_by_replicate(tmp_path: Path) -> None:
    for optimizer, shift in (("vradam", 0), ("adamw", 0), ("sgd", 1)):
        for replicate in range(2):
            make_run(tmp_path, 0.5, optimizer=optimizer, seed=2000 + replicate, tuned=tuned(replicate, 0.001),
                     overrides={"task.data.split_seed": replicate + shift})  # fmt: skip
    a, b, c = (arm(tmp_path, name) for name in ("vradam", "adamw", "sgd"))
    assert compare([(a, b)], "test", Smallest())[0].judged
    (found,) = compare([(a, c)], "test", Smallest())
    assert str(found.verdict) == "not comparable: task.data.split_seed"
    assert not found.judged


def test_a_diverged_run_of_a_replicate() -> None:
    """One side's loss makes the replicate infinite: no t test, and six replicates at least."""
    a = {(r, s): 0.9 for r in range(3) for s in range(2)}
    b = {**dict.fromkeys(a, 0.8), (1, 0): math.nan}
    pairs = pair_replicates(a, b, "max", Smallest())
    assert pairs.gains == pytest.approx((0.1, math.inf, 0.1))
    (verdict,) = judge([pairs])
    assert (verdict.test, str(verdict)) == (
        "sign-flip",
        "insufficient data (at least 3 more replicates for any verdict)",
    )


def test_smallest_effects_on_scales_that_mean_something() -> None:
    found = Smallest.parse("digits=error:5%,pydoc=log:0.02,0.001")
    assert found.on("digits").of(0.9) == pytest.approx(0.005)
    assert found.on("pydoc").of(4.0) == pytest.approx(4 * math.expm1(0.02))
    assert found.on("cifar10").of(0.5) == 0.001
    assert math.isnan(found.on("digits").of(3.0))
    assert "the default, which nobody declared" in Smallest().told
    assert Smallest.parse("2%").told == "2 % of B's mean (as declared)"
    for wrong in ("log:x", "nats:1", ":1", "1%,2%"):
        with pytest.raises(ValueError, match="smallest-effect="):
            Smallest.parse(wrong)


def test_the_verdict_has_two_parts(tmp_path: Path) -> None:
    method(tmp_path, "vradam", [0.9 + r / 1000 for r in range(6)], seeds=2)
    method(tmp_path, "adamw", [0.8] * 6, seeds=2)
    couple = arm(tmp_path, "vradam"), arm(tmp_path, "adamw")
    words = {
        text: str(compare([couple], "test", Smallest.parse(text))[0].verdict) for text in ("0.01", "0.1025", "0.2")
    }
    assert words == {
        "0.01": "better by more than the smallest effect",
        "0.1025": "better by how much is open",
        "0.2": "equivalent",
    }


def test_bad_runs() -> None:
    """Quartiles 0.9 and 0.92 of eight: the fence lies at 0.9 - 3 · 0.02."""
    values = [0.89, 0.9, 0.9, 0.91, 0.91, 0.92, 0.92, 0.93]
    assert bad_runs(values, "max") == 0
    assert bad_runs([*values, 0.2, math.nan], "max") == 2
    assert bad_runs([*values, 5.0], "max") == 0
    assert bad_runs([*values, 5.0], "min") == 1
    assert bad_runs([0.1, 0.9, math.nan], "max") == 1


# ---- looks ----------------------------------------------------------------------------------------------------------


def seeds_of(root: Path, numbers: Sequence[int], gain: float = 0.1) -> None:
    for seed in numbers:
        for optimizer, value in (("vradam", 0.8 + gain), ("adamw", 0.8)):
            make_run(root, value + seed / 1000, optimizer=optimizer, seed=seed)


def test_a_second_look_at_more_seeds_is_tested_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown() -> dict[str, Any]:
        (row,) = json.loads(report(capsys, "compare", "vradam", "adamw", tmp_path, "--format", "json"))["rows"]
        return dict(row)

    seeds_of(tmp_path, range(1, 7))
    assert (shown()["test"], shown()["p"]) == ("sign-flip", 2 / 64)  # the same runs again are no second look
    (line,) = (tmp_path / "made" / FILE).read_text().splitlines()
    assert json.loads(line)["runs"] == [[0, seed] for seed in range(1, 7)]
    seeds_of(tmp_path, [0, 7])
    again = shown()
    assert (again["test"], again["units"]) == ("e-process", 8)
    assert 0.01 < again["p"] < 0.05  # 2 / 256 had it not been looked at
    assert len((tmp_path / "made" / FILE).read_text().splitlines()) == 2
    markdown = report(capsys, "compare", "vradam", "adamw", tmp_path)
    assert "looked at 1 time with fewer runs" in markdown
    fixed = report(capsys, "compare", "vradam", "adamw", tmp_path, "--test", "fixed")
    assert "tested as if it had not been" in fixed
    assert "e-process" not in report(capsys, "compare", "vradam", "adamw", tmp_path, "--split", "val")


def test_units_keep_the_order_in_which_they_were_seen(tmp_path: Path) -> None:
    seeds_of(tmp_path, [5, 6])
    first = compare([(arm(tmp_path, "vradam"), arm(tmp_path, "adamw"))], "test", Smallest())
    Looks().record(first, "test", "compare")
    seeds_of(tmp_path, [1])
    a, b = arm(tmp_path, "vradam"), arm(tmp_path, "adamw")
    seen = Looks().before(a, b, "test", [(0, 1), (0, 5), (0, 6)])
    assert seen is not None
    assert (seen.count, seen.order) == (1, ((0, 5), (0, 6), (0, 1)))
    assert Looks().before(b, a, "test", [(0, 1), (0, 5), (0, 6)]) == seen  # whichever comes first
    assert Looks().before(a, b, "test", [(0, 5), (0, 6)]) is None
    fixed = Looks("fixed").before(a, b, "test", [(0, 1), (0, 5), (0, 6)])
    assert fixed is not None
    assert not fixed.decides


def test_seeds_added_to_a_replicate_after_a_look_are_not_in_its_test(tmp_path: Path) -> None:
    method(tmp_path, "vradam", [0.9, 0.8])
    method(tmp_path, "adamw", [0.7, 0.7])
    couple = arm(tmp_path, "vradam"), arm(tmp_path, "adamw")
    Looks().record(compare([couple], "test", Smallest()), "test", "compare")
    make_run(tmp_path, 0.1, seed=2050, settings={"lr": 0.001}, tuned=tuned(0, 0.001))
    make_run(tmp_path, 0.9, optimizer="adamw", seed=2050, settings={"lr": 0.0011}, tuned=tuned(0, 0.0011))
    couple = arm(tmp_path, "vradam"), arm(tmp_path, "adamw")
    (found,) = compare([couple], "test", Smallest(), looks=Looks())
    assert found.pairs.gains == pytest.approx((0.2, 0.1))
    assert (found.pairs.later, found.pairs.seeds, found.verdict.test) == (1, 7, "e-process")
    assert str(found.verdict).startswith("insufficient data (at least 4 more replicates for any verdict, about ")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds_of(tmp_path, range(3))
    found = compare([(arm(tmp_path, "vradam"), arm(tmp_path, "adamw"))], "test", Smallest())
    (tmp_path / "made" / FILE).mkdir()
    looks = Looks()
    looks.record(found, "test", "compare")
    assert any("cannot be written" in note for note in looks.notes)
    assert any("cannot be read" in note for note in looks.notes)


def test_a_torn_line_is_left_out_and_not_continued(tmp_path: Path) -> None:
    seeds_of(tmp_path, range(3))
    path = tmp_path / "made" / FILE
    path.write_text('{"when": "2026-01-01", "ru')
    found = compare([(arm(tmp_path, "vradam"), arm(tmp_path, "adamw"))], "test", Smallest())
    Looks().record(found, "test", "compare")
    torn, whole = path.read_text().splitlines()
    assert torn == '{"when": "2026-01-01", "ru'
    assert json.loads(whole)["names"] == ["digits mlp", "vradam", "adamw"]


# ---- the family, the control, the tasks -----------------------------------------------------------------------------


def test_a_family_that_is_planned_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds_of(tmp_path, range(8))
    text = report(capsys, "compare", "vradam", "adamw", tmp_path, "--family", "5", "--format", "json")
    (row,) = json.loads(text)["rows"]
    assert (row["p"], row["p_holm"], row["family"]) == (2 / 256, 10 / 256, 5)


def test_the_baseline_against_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method(tmp_path, "vradam", [0.9] * 3)
    method(tmp_path, "adamw", [0.8, 0.81, 0.5])
    method(tmp_path, "adamw", [0.79, 0.8, 0.82], control=True)
    labels = [one.label for one in collect([tmp_path])]
    assert labels == ["adamw", "adamw runs=control", "vradam"]
    shown = report(capsys, "compare", "vradam", "adamw", tmp_path)
    assert "Negative control, digits mlp: adamw tuned again: no difference from itself (p 0." in shown
    assert "of 3 couples of adamw's 3 tunings 3 differ by a test over seeds" in shown
    assert "runs=control" in report(capsys, "table", tmp_path, "--baseline", "adamw")


def test_a_baseline_tuned_once_has_no_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method(tmp_path, "vradam", [0.9])
    method(tmp_path, "adamw", [0.8])
    shown = report(capsys, "compare", "vradam", "adamw", tmp_path)
    assert "No negative control: adamw was tuned once" in shown
    assert "several tunings (replicates=R)" in shown


def test_tasks_are_pooled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for task, gain in (("digits", 0.1), ("hypergrid", 0.05), ("pydoc", 0.0)):
        for seed in range(8):
            for optimizer, shift in (("vradam", gain), ("adamw", 0.0)):
                value = 0.5 + shift + (seed * (1 if optimizer == "vradam" else 2)) / 1000
                make_run(tmp_path, value, task=task, optimizer=optimizer, seed=seed)
    shown = json.loads(report(capsys, "compare", "vradam", "adamw", tmp_path, "--format", "json"))
    pooled = shown["overall"]["random_effects"]
    assert pooled["tasks"] == 3
    assert pooled["low"] < 0.1 < pooled["high"]
    assert {row["family"] for row in shown["rows"]} == {3}
    assert "Over 3 tasks as a sample of such tasks" in report(capsys, "compare", "vradam", "adamw", tmp_path)


def test_the_page_is_one_family_and_shows_the_control(tmp_path: Path) -> None:
    """Two rivals of the baseline are two tests; the baseline tuned again is none, and no contestant."""
    for optimizer, means in (("adamw", [0.8, 0.81, 0.82]), ("sgd", [0.5, 0.6, 0.7]), ("vradam", [0.9, 0.91, 0.92])):
        method(tmp_path, optimizer, means)
    method(tmp_path, "adamw", [0.8, 0.8, 0.82], control=True)
    page.write(collect([tmp_path]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "Holm-corrected over the 2 comparisons of the family" in text
    assert "adamw tuned again: no difference from itself" in text
    assert "9 (3 tunings)" in text
    assert text.count("<h3 id=") == 2
    looks = [json.loads(line) for line in (tmp_path / "made" / FILE).read_text().splitlines()]
    assert [(look["what"], look["family"], look["units"]) for look in looks] == [("page", 2, 3)] * 2
