"""What the results page asks of a committed study, on one that has schedules and several tunings."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from made_runs import make_run
from scipy import stats

from vrbench.report.collect import collect
from vrbench.runs.records import find_runs


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import committed

        yield committed


@pytest.fixture(scope="module")
def study(module: ModuleType) -> Any:
    """It unpacks its records once for all tests, which leave them as they are."""
    return module.Committed(ROOT / "results" / "digits_hypergrid")


def test_a_study_whose_records_alone_are_there_is_not_over(module: ModuleType, study: Any) -> None:
    assert study.over
    assert not module.Committed(ROOT / "results" / "quickstart_rates" / "nowhere").over


def test_the_scale_is_what_a_plan_sets_without_paths(module: ModuleType) -> None:
    tasks = module.Committed(ROOT / "results" / "paper_small").scale
    assert [task for task, _ in tasks] == ["cifar10", "wikitext2", "diffusion_mnist", "gridworld", "hypergrid"]
    assert tasks[0][1].startswith("train_size=10000, val_fraction=0.04, test_size=2000, batch_size=64, model.channels=")
    assert "path=" not in str(tasks)
    assert tasks[-1][1] == ""


def test_choices_are_counted_over_searches(study: Any) -> None:
    chosen = study.chosen("optimizer.gate_on")
    assert set(chosen) == {("digits", "vradam"), ("hypergrid", "vradam")}
    assert all(sum(counts.values()) == 6 for counts in chosen.values())  # two schedules, three tunings


def test_choices_of_all_tasks_are_added(study: Any) -> None:
    both = study.chosen_by("vradam", "optimizer.gate_on")
    assert both == sum(study.chosen("optimizer.gate_on").values(), Counter())
    assert both.total() == 12
    assert study.chosen_by("sgd", "optimizer.gate_on").total() == 0


def test_tunings_are_held_against_each_other(study: Any) -> None:
    """Welch's test of scipy, over every couple of an arm's tunings."""
    found = study.against_itself()
    assert [(arm.task, arm.settings["schedule"]) for arm, _ in found] == [
        (task, schedule) for task in ("digits", "hypergrid") for schedule in ("constant", "wsd")
    ]
    for arm, itself in found:
        seeds = [[v for v in part.by_seed(f"test/{arm.metric}").values() if v == v] for part in arm.parts.values()]
        p = [stats.ttest_ind(a, b, equal_var=False).pvalue for a, b in combinations(seeds, 2)]
        assert (itself.single, itself.couples) == (sum(value < 0.05 for value in p), 3)


def test_a_logged_metric_has_the_median_of_its_runs_medians(study: Any) -> None:
    for arm in study.arms:
        gates = [[row["optim/gate"] for row in run.rows() if "optim/gate" in row] for run in arm.over]
        if arm.optimizer == "vradam":
            assert study.median(arm, "optim/gate") == np.median([np.median(values) for values in gates])
        else:
            assert math.isnan(study.median(arm, "optim/gate"))


def test_powers_are_those_of_the_gate_as_published(module: ModuleType) -> None:
    study = module.Committed(ROOT / "results" / "paper_table4")
    losses = study.powers("test/loss")
    assert {task: "".join(sorted(by_power)) for task, by_power in losses.items()} == {
        "cifar10": "23456",
        "wikitext2": "23456",
    }
    for arm in study.arms:
        form = [arm.settings.get(f"optimizer.{key}") for key in ("gate_on", "gate_scope", "power")]
        if form[:2] == ["velocity", "global"]:
            values = [run.summary["metrics"]["test/loss"] for run in arm.over]
            assert losses[arm.task][form[2]] == pytest.approx(np.mean(values), rel=1e-12)


def test_tunings_are_told_by_another_metric_too(module: ModuleType) -> None:
    study = module.Committed(ROOT / "results" / "digits_hypergrid")
    by_loss = {
        arm.settings["schedule"]: means for arm, means in study.tuning_means("sgd", "loss") if arm.task == "digits"
    }
    assert all(len(means) == 3 and means == sorted(means) for means in by_loss.values())
    for arm in study.arms:
        if (arm.task, arm.optimizer) == ("digits", "sgd"):
            known = [value for value in arm.by_run("test/loss").values() if value == value]
            assert np.mean(by_loss[arm.settings["schedule"]]) == pytest.approx(np.mean(known), rel=1e-12)


def test_tunings_are_paired_by_replicate(module: ModuleType) -> None:
    """The mean of the differences is that of verdicts.json; a ratio's logarithm is a difference of logarithms."""
    study = module.Committed(ROOT / "results" / "digits_control")
    (row,) = study.compared("vradam")
    differences = study.differences("digits")
    assert len(differences) == row["units"]
    assert np.mean(differences) == pytest.approx(row["difference"], rel=1e-9)
    assert np.mean(study.tunings("digits"), axis=0) == pytest.approx([row["mean_a"], row["mean_b"]], rel=1e-9)
    a, b = np.log(study.tunings("digits")).T
    assert study.log_ratios("digits") == pytest.approx(a - b, rel=1e-9)


def test_seeds_are_paired_where_each_was_tuned_once(module: ModuleType) -> None:
    study = module.Committed(ROOT / "results" / "paper_rivals")
    for row in study.by_gain():
        found = study.by_seed(row)
        assert len(found) == row["units"]
        assert np.mean(found) == pytest.approx(row["difference"], rel=1e-9)


def test_who_is_ahead_counts_the_baseline_too(module: ModuleType) -> None:
    study = module.Committed(ROOT / "results" / "paper_rivals")
    for task, best in (("cifar10", "max"), ("wikitext2", "min")):
        rows = [row for row in study.by_gain() if row["task"] == task]
        (mine,) = (row["mean_a"] for row in rows if row["a"].startswith("vradam "))
        means = [row["mean_a"] for row in rows] + [rows[0]["mean_b"]]
        better = [value for value in means if (value > mine if best == "max" else value < mine)]
        ahead = study.ahead(task)
        assert len(ahead) == len(better)
        assert ("adamw" in ahead) == (rows[0]["mean_b"] in better)


def test_what_searches_found_and_how_long_runs_took(study: Any) -> None:
    rates = study.found("digits", "vradam", "optimizer.lr")
    assert rates == sorted(rates)
    assert len(rates) == 6  # two schedules, three tunings
    seconds = study.seconds("digits")
    runs = [run for run in find_runs(study.records) if run.manifest["choices"]["task"] == "digits"]
    assert len(seconds) == len(runs)
    assert seconds[-1] == max(run.summary["seconds"]["train"] for run in runs if run.summary)


def test_runs_of_the_tables_are_counted(study: Any) -> None:
    summaries = [json.loads(path.read_text()) for path in study.records.glob("confirm/*/summary.json")]
    n, diverged, bad = study.ended()
    assert (n, diverged) == (len(summaries), sum(summary["status"] == "diverged" for summary in summaries))
    assert bad >= diverged > 0


def test_schedules_are_compared_within_an_optimizer(study: Any) -> None:
    found = study.schedules()
    assert len(found) == 6  # two tasks, three optimizers
    by_arm = {(row["task"], row["optimizer"], row["settings"]): row for row in study.rows["Every configuration"]}
    for one in found:
        assert one.judged
        assert one.a.optimizer == one.b.optimizer
        assert (one.a.settings["schedule"], one.b.settings["schedule"]) == ("wsd", "constant")
        assert one.pairs.units == 3
        if one.a.diverged + one.b.diverged == 0:
            mean = by_arm[one.a.task, one.a.optimizer, "schedule=wsd"]["mean"]
            assert one.pairs.mean_a == pytest.approx(mean, rel=1e-9)


def test_a_lead_is_what_a_replicate_s_mean_is_better_by(study: Any) -> None:
    """By hand from the runs: means over seeds, the sign of an improvement, replicate by replicate."""
    import results_page

    by_hand, found = 0, {lead.arm.task: lead for lead in study.leads()}
    assert set(found) == {"digits", "hypergrid"}
    arms = {(arm.task, arm.optimizer, arm.settings["schedule"]): arm for arm in study.arms}
    for task, lead in found.items():
        assert lead.schedule == "wsd"
        sign = 1 if lead.arm.direction == "max" else -1
        for schedule, leads in (("constant", lead.without), ("wsd", lead.with_it)):
            sides = [arms[task, optimizer, schedule] for optimizer in ("vradam", "adamw")]
            if any(arm.diverged for arm in sides):
                continue
            key, by_hand = f"test/{lead.arm.metric}", by_hand + 1
            ours, theirs = ([statistics.fmean(p.by_seed(key).values()) for p in arm.tunings] for arm in sides)
            assert leads == pytest.approx([sign * (a - b) for a, b in zip(ours, theirs, strict=True)])
    assert by_hand >= 3
    taken = found["digits"].taken
    half = stats.t.ppf(0.975, 2) * stats.sem(taken)
    low, high = (results_page.figure(taken.mean() + side * half, 3) for side in (-1, 1))
    assert results_page.estimate(taken).endswith(f"[{low}, {high}]")


def test_a_lead_across_schedules_is_paired_by_replicate(study: Any) -> None:
    arms = {(arm.task, arm.optimizer, arm.settings["schedule"]): arm for arm in study.arms}
    sides = [arms["digits", "vradam", "constant"], arms["digits", "adamw", "wsd"]]
    assert not any(arm.diverged for arm in sides)
    ours, theirs = ([statistics.fmean(p.by_seed("test/accuracy").values()) for p in arm.tunings] for arm in sides)
    across = study.lead_across("digits", "constant", "wsd")
    assert across == pytest.approx([a - b for a, b in zip(ours, theirs, strict=True)])


def test_what_schedules_take_is_one_family(module: ModuleType, study: Any) -> None:
    leads = study.leads()
    low, high = sorted(float(stats.ttest_1samp(lead.taken, 0).pvalue) for lead in leads)
    assert sorted(module.taken_holm(leads)) == pytest.approx([2 * low, max(2 * low, high)])
    assert low < 0.5


def test_the_paper_s_rows_are_asked_by_loss(module: ModuleType, study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"row": "X", "same": {"task": "digits"}, "losses": {"vradam": [1, 2], "adamw": [1, 2]}}
    monkeypatch.setattr(module, "published", lambda: {"table1": [row]})
    study.arms = [
        replace(arm, settings=arm.settings | {"optimizer.gate_on": "velocity"}) if arm.optimizer == "vradam" else arm
        for arm in study.arms
    ]  # as where all its searches chose the same
    found = study.beside_paper()
    assert [one.a.settings["schedule"] for _, one in found] == ["constant", "wsd"]
    for _, one in found:
        means = [
            statistics.fmean(run.summary["metrics"]["test/loss"] for run in part.over) for part in one.a.parts.values()
        ]
        assert one.pairs.mean_a == pytest.approx(statistics.fmean(means))


def test_the_spread_over_seeds_is_within_a_tuning(study: Any) -> None:
    arm = next(arm for arm in study.arms if arm.task == "digits" and arm.optimizer == "vradam")
    variances = [
        statistics.variance([run.summary["metrics"]["test/accuracy"] for run in part.over])
        for part in arm.parts.values()
    ]
    assert study.seed_spread(arm) == pytest.approx(math.sqrt(statistics.fmean(variances)))
    rows = study.spreads()
    assert [(row["task"], row["schedule"]) for row in rows] == [
        (task, schedule) for task in ("digits", "hypergrid") for schedule in ("constant", "wsd")
    ]
    assert study.seed_spread(arm) in {row["vradam"] for row in rows}
    for row in rows:
        assert row[row["smallest"]] == min(row[name] for name in ("adamw", "sgd", "vradam"))


def test_comparisons_of_a_task_stand_by_gain(study: Any) -> None:
    rows = study.by_gain()
    assert len(rows) == 8
    assert [row["task"] for row in rows] == ["digits"] * 4 + ["hypergrid"] * 4
    digits, hypergrid = rows[:4], rows[4:]
    assert {digits[0]["direction"], hypergrid[0]["direction"]} == {"max", "min"}
    assert [row["difference"] for row in digits] == sorted((row["difference"] for row in digits), reverse=True)
    assert [row["difference"] for row in hypergrid] == sorted(row["difference"] for row in hypergrid)


def test_the_means_of_tunings_are_sorted(study: Any) -> None:
    found = study.tuning_means()
    assert len(found) == 4  # two tasks, two schedules
    for arm, means in found:
        assert len(means) == 3
        assert means == sorted(means)
        assert statistics.fmean(means) == pytest.approx(statistics.fmean(arm.by_run(f"test/{arm.metric}").values()))


def test_seeds_with_the_lower_value_are_counted(study: Any) -> None:
    rows = study.grid(["task", "optimizer"], ["schedule"])
    a, b = (rows["digits", name]["wsd",].tunings[0] for name in ("vradam", "adamw"))
    ours, theirs = a.by_seed("test/loss"), b.by_seed("test/loss")
    assert study.lower(a, b, "test/loss") == (sum(ours[seed] < theirs[seed] for seed in ours), len(ours))
    assert study.lower(a, a, "test/loss") == (0, len(ours))


def test_the_loss_of_word_frequencies_is_what_every_run_logged(module: ModuleType, tmp_path: Path) -> None:
    for optimizer, perplexity in (("adam", 500.0), ("sgd", 500.0), ("lion", 400.0)):
        folder = make_run(tmp_path, 0.5, optimizer=optimizer)
        summary = json.loads((folder / "summary.json").read_text())
        summary["metrics"]["val/unigram_perplexity"] = perplexity
        (folder / "summary.json").write_text(json.dumps(summary))
    one = module.Committed(tmp_path)
    one.arms = [arm for arm in collect([tmp_path]) if arm.optimizer != "lion"]
    assert one.unigram == pytest.approx(math.log(500))
    one.arms = collect([tmp_path])
    with pytest.raises(ValueError, match="unpack"):
        _ = one.unigram


def test_a_grid_has_an_arm_at_each_place(study: Any) -> None:
    rows = study.grid(["task", "optimizer"], ["schedule"])
    assert len(rows) == 6
    assert all(set(cells) == {("constant",), ("wsd",)} for cells in rows.values())
    arm = rows["digits", "adamw"]["wsd",]
    assert (arm.task, arm.optimizer, arm.settings["schedule"]) == ("digits", "adamw", "wsd")
    with pytest.raises(ValueError, match="several arms"):
        study.grid(["task"], ["schedule"])
    assert set(study.grid(["optimizer"], ["task", "schedule", "optimizer.power"])["sgd",]) == {
        (task, schedule, "–") for task in ("digits", "hypergrid") for schedule in ("constant", "wsd")
    }


def test_the_highest_value_is_over_all_rows_of_all_runs(study: Any) -> None:
    arms = list(study.grid(["task", "optimizer"], ["schedule"])["digits", "vradam"].values())
    logged = [row["optim/gate"] for arm in arms for run in arm.over for row in run.rows() if "optim/gate" in row]
    assert min(logged) < study.highest(arms, "optim/gate") == max(logged)
    assert math.isnan(study.highest(arms, "eos/ratio"))


def test_another_metric_is_the_mean_over_all_runs(study: Any) -> None:
    arm = study.grid(["task", "optimizer"], ["schedule"])["digits", "adamw"]["wsd",]
    runs = [run for part in arm.parts.values() for run in part.over]
    assert study.mean(arm, "test/loss") == pytest.approx(
        statistics.fmean(run.summary["metrics"]["test/loss"] for run in runs)
    )


def test_runs_within_bounds_are_counted(study: Any) -> None:
    arm = study.grid(["task", "optimizer"], ["schedule"])["digits", "adamw"]["wsd",]
    values = sorted(arm.by_run("test/accuracy").values())
    assert study.within(arm, "test/accuracy", values[2], values[-2]) == sum(
        values[2] <= value <= values[-2] for value in values
    )
    assert study.within(arm, "test/accuracy", 2, 3) == 0


def test_a_cell_says_mean_interval_and_what_diverged(module: ModuleType, study: Any) -> None:
    import results_page

    arms = {
        (arm.task, arm.optimizer, arm.settings["schedule"], replicate): part
        for arm in study.arms
        for replicate, part in arm.parts.items()
    }
    arm = arms["digits", "adamw", "wsd", 0]
    values = [run.summary["metrics"]["test/accuracy"] for run in arm.over]
    assert results_page.over_seeds(arm, "test/accuracy").startswith(f"{statistics.fmean(values):.4g} [")
    diverged = next(arm for arm in arms.values() if arm.diverged)
    assert results_page.over_seeds(diverged, "test/loss").endswith(
        f", {diverged.diverged} of {len(diverged.over)} diverged"
    )


def test_every_table_of_the_page_is_made_of_a_study(study: Any) -> None:
    """Those of studies that are not over are in no page yet."""
    import results_page
    from jinja2 import DictLoader

    once = type(study)(ROOT / "results" / "paper_rivals")
    source = "{% import 'tables.md.jinja' as tables with context %}"
    for call in ("scale", "explained", "edge", "itself", "tunings"):
        source += f"## {call}\n{{{{ tables.{call}(made) }}}}\n"
    source += "## leads\n{{ tables.leads(made.leads()) }}\n## spread\n{{ tables.spread(made.spreads()) }}\n"
    source += "## beside\n{{ tables.beside([(made, 'constant')]) }}\n"
    source += "## ended\n{{ tables.ended([made]) }}\n## rivals\n{{ tables.rivals(once) }}\n"
    source += "## other\n{{ tables.other_metrics(made, 'digits', ['accuracy', 'loss']) }}\n"
    source += (
        "## chosen\n{{ tables.chosen(made, 'optimizer.gate_on') }}\n## forms\n{{ tables.forms(made, ['schedule']) }}\n"
    )
    text = results_page.environment(DictLoader({"page": source})).get_template("page").render(made=study, once=once)
    parts = dict(part.split("\n", 1) for part in text.split("## ")[1:])
    assert all("|\n\n|" not in part for part in parts.values())  # which would end a table
    rows = {name: [line for line in part.splitlines() if line.startswith("| ")] for name, part in parts.items()}
    assert {name: len(lines) - 1 for name, lines in rows.items()} == {
        "scale": 2, "beside": 0, "explained": 6, "leads": 2, "spread": 4, "edge": 0, "rivals": 22,
        "itself": 4, "tunings": 8, "ended": 1, "other": 6, "chosen": 2, "forms": 12,
    }  # fmt: skip
    for lines in rows.values():
        assert len({line.count("|") for line in lines}) == 1
