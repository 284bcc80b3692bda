"""Figures say what the records say: their lines and points are compared with numbers worked out here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import make_run, write_rows
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from vrbench.report import cost_figure, eos_figure, figures, heat_maps, search_figures, style
from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.curves import curve, representative
from vrbench.report.style import NoData, look_of


def line(axis: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [one for one in axis.lines if str(one.get_label()).startswith(label)]
    return list(found.get_xdata()), list(found.get_ydata())


# ---- curves ---------------------------------------------------------------------------------------------------------


def test_curves_meet_on_common_steps_and_never_beyond_their_own(tmp_path: Path) -> None:
    write_rows(make_run(tmp_path, 1.0, seed=0), [{"step": 0, "val/x": 0.0}, {"step": 10, "val/x": 10.0}])
    write_rows(make_run(tmp_path, 1.0, seed=1), [{"step": 0, "val/x": 2.0}, {"step": 5, "val/x": 5.0}])
    write_rows(make_run(tmp_path, 1.0, seed=2), [{"step": 0, "val/x": None}, {"step": 5, "val/x": 8.0, "train/x": 1.0}])
    (arm,) = collect([tmp_path])
    found = curve(arm, "val/x")
    assert found is not None
    assert (found.steps, found.seeds) == ([0, 5, 10], 3)
    assert found.mean == [1.0, 6.0, 10.0]  # (0 + 2) / 2; (5 interpolated + 5 + 8) / 3; seed 0 alone
    half = 4.302652729911275 * math.sqrt(3.0) / math.sqrt(3)  # t of 2 degrees of freedom, variance of 5, 5, 8
    assert found.low == pytest.approx([math.nan, 6 - half, math.nan], nan_ok=True)
    assert found.high == pytest.approx([math.nan, 6 + half, math.nan], nan_ok=True)
    assert curve(arm, "val/y") is None


def test_long_curves_are_thinned_by_means(tmp_path: Path) -> None:
    values = [float(step % 7) for step in range(1, 10_001)]
    write_rows(make_run(tmp_path, 1.0), [{"step": step, "val/x": value} for step, value in enumerate(values, 1)])
    (arm,) = collect([tmp_path])
    found = curve(arm, "val/x", most=100)
    assert found is not None
    assert len(found.steps) == 100
    assert found.steps == sorted(found.steps)
    assert sum(found.mean) / 100 == pytest.approx(sum(values) / len(values), rel=1e-3)


def test_a_diverged_run_ends_where_it_ends(tmp_path: Path) -> None:
    for seed in range(3):
        rows = [{"step": step, "val/x": float(seed)} for step in range(1, 5)]
        status = "diverged" if seed == 2 else "finished"
        write_rows(make_run(tmp_path, 1.0, seed=seed, status=status), rows[:2] if seed == 2 else rows)
    (arm,) = collect([tmp_path])
    found = curve(arm, "val/x")
    assert found is not None
    assert found.mean == [1.0, 1.0, 0.5, 0.5]
    assert found.ends == [(2.0, 2.0)]


def test_the_best_of_each_optimizer_are_shown_first(tmp_path: Path) -> None:
    for place, (optimizer, lr) in enumerate([("a", 0.1), ("a", 0.2), ("a", 0.3), ("b", 0.1), ("b", 0.2)]):
        make_run(tmp_path, 0.9 - place / 10, optimizer=optimizer, settings={"lr": lr})
    arms = collect([tmp_path])
    assert [arm.label for arm in representative(arms, 3)] == ["a lr=0.1", "a lr=0.2", "b lr=0.1"]
    assert representative(arms, 9) == arms


# ---- figures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_arms(tmp_path: Path) -> list[Arm]:
    """fast reaches an accuracy of 0.8 after 2 s and slow after 4 s, with three seeds each, one of slow diverged."""
    for optimizer, pace in (("fast", 10.0), ("slow", 5.0)):
        for seed in range(3):
            lost = optimizer == "slow" and seed == 2
            folder = make_run(
                tmp_path,
                0.8,
                optimizer=optimizer,
                seed=seed,
                seconds=300 / pace,
                status="diverged" if lost else "finished",
            )
            rows = [
                {"step": step, "train/loss": 1 / step, "val/accuracy": 0.04 * step, "time/steps_per_s": pace}
                for step in (10, 20, 30)
            ]
            write_rows(folder, rows[:1] if lost else rows)
    return collect([tmp_path])


def test_learning_curves(two_arms: list[Arm]) -> None:
    figure = figures.learning_curves(two_arms)
    train, accuracy = figure.axes
    assert line(train, "fast") == ([10, 20, 30], pytest.approx([1 / 10, 1 / 20, 1 / 30]))
    assert line(accuracy, "slow (1 of 3 diverged)") == ([10, 20, 30], pytest.approx([0.4, 0.8, 1.2]))
    assert (accuracy.get_xlabel(), accuracy.get_ylabel()) == ("step", "validation accuracy ↑")


def test_time_to_target(two_arms: list[Arm]) -> None:
    (axis,) = figures.time_to_target(two_arms).axes
    end = 1.05 * 4
    assert line(axis, "fast") == ([0, 2, 2, 2, end], pytest.approx([0, 1 / 3, 2 / 3, 1, 1]))
    assert line(axis, "slow") == ([0, 4, 4, end], pytest.approx([0, 1 / 3, 2 / 3, 2 / 3]))
    assert "accuracy ≥ 0.8, which half" in " ".join(str(axis.figure.get_suptitle()).split())


def test_cost(tmp_path: Path) -> None:
    """Each run with a command, and so a process, of its own; but for one of them, none of whose memory is its own."""
    for optimizer, seconds in (("fast", 30), ("slow", 60), ("slow_too", 60)):
        for seed in range(2):
            shared = optimizer == "slow_too"
            command = ["vrbench", f"optimizer={optimizer}", f"seed={'0,1' if shared else seed}"]
            make_run(tmp_path, 0.8, optimizer=optimizer, seed=seed, seconds=seconds, command=command)
    figure = cost_figure.cost(collect([tmp_path]))
    time, memory = figure.axes
    assert [bar.get_width() for bar in time.patches] == pytest.approx([2000, 2000, 1000])  # from below
    assert [bar.get_width() for bar in memory.patches] == pytest.approx([1e9 / 2**20] * 2)
    assert [label.get_text() for label in time.get_yticklabels()] == ["slow_too", "slow", "fast"]
    assert "mean over 2 finished runs" in note(figure)


def test_memory_of_a_shared_process_is_no_runs_own(two_arms: list[Arm]) -> None:
    """All runs of `two_arms` have one command, as those of a multirun have; a run by itself is no exception."""
    figure = cost_figure.cost(two_arms)
    (time,) = figure.axes
    assert len(time.patches) == 2
    assert "peak memory is not shown" in note(figure)
    alone = collect([two_arms[0].runs[0].directory])
    assert len(alone[0].runs) == 1
    assert cost_figure.own_memory(alone[0], cost_figure.commands_of) == []


def test_the_first_run_of_a_process_has_its_own_peak(tmp_path: Path) -> None:
    for seed in range(3):
        path = make_run(tmp_path, 0.8, seed=seed, command=["vrbench", "-m", "seed=0,1,2"]) / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["machine"]["runs_before"] = seed
        path.write_text(json.dumps(manifest))
    (arm,) = collect([tmp_path])
    assert len(cost_figure.own_memory(arm, cost_figure.commands_of)) == 1


def note(figure: Figure) -> str:
    """What stands above a figure's legend."""
    (legend,) = figure.legends
    return " ".join(legend.get_title().get_text().split())


def test_performance_profile(tmp_path: Path) -> None:
    for task, metric, direction, good, bad in (("a", "l1", "min", 1.0, 2.0), ("b", "accuracy", "max", 0.8, 0.4)):
        for seed in range(2):
            common = {"task": task, "metric": metric, "direction": direction, "seed": seed}
            make_run(tmp_path, good, optimizer="good", **common)
            make_run(tmp_path, bad, optimizer="bad", **common, status="diverged" if seed else "finished")
    (axis,) = figures.performance_profile(collect([tmp_path])).axes
    ratios, share = line(axis, "good")
    assert share[-1] == 1.0
    ratios, share = line(axis, "bad")
    assert {part for ratio, part in zip(ratios, share, strict=True) if ratio < 1.99} == {0.0}
    assert share[-1] == 0.5  # the runs that did not diverge have a factor of 2 in both tasks
    with pytest.raises(NoData, match="two tasks"):
        figures.performance_profile(collect([tmp_path])[:2])


@pytest.fixture
def grid(tmp_path: Path) -> list[Arm]:
    """Accuracy 0.5 + 0.1 × place of lr + 0.01 × place of beta3; the largest rates diverge at the smallest beta3."""
    for place, lr in enumerate((1e-4, 1e-3, 1e-2)):
        for other, beta3 in enumerate((0.5, 1.0)):
            lost = lr == 1e-2 and beta3 == 0.5
            make_run(
                tmp_path,
                0.5 + 0.1 * place + 0.01 * other,
                settings={"lr": lr, "beta3": beta3},
                status="diverged" if lost else "finished",
            )
    return collect([tmp_path])


def test_lr_sensitivity(grid: list[Arm]) -> None:
    """The line goes through the better β3 at each rate; that the other one diverged at the largest rate is marked."""
    figure = search_figures.lr_sensitivity(grid)
    (axis,) = figure.axes
    rates, values = line(axis, "vradam (6 runs): within 5 % at 0.01–0.01 or further")
    assert rates == [1e-4, 1e-3, 1e-2]
    assert values == pytest.approx([0.51, 0.61, 0.71])
    points, _ = max(
        (own for own in axis.lines if own.get_linestyle() == "None"), key=lambda own: len(own.get_xdata())
    ).get_data()
    assert sorted(points) == [1e-4, 1e-4, 1e-3, 1e-3, 1e-2]
    (cross,) = [own for own in axis.lines if own.get_marker() == "x"]
    assert list(cross.get_xdata()) == [1e-2]
    assert cross.get_ydata()[0] < 0.1  # of the height of the picture
    assert "best of the other settings" in note(figure)
    with pytest.raises(NoData, match="3 values"):
        search_figures.lr_sensitivity([arm for arm in grid if arm.settings["optimizer.lr"] != "0.01"])


def test_random_trials_count_as_of_one_rate_within_a_third_of_a_decade() -> None:
    tried = [(0.0011, 0.5, "a"), (0.0012, 0.7, "b"), (0.0013, 0.6, "c"), (0.011, 0.8, "d"), (0.11, math.nan, "e")]
    points = [search_figures.Trial({"optimizer.lr": rate}, value, 0.0, others) for rate, value, others in tried]
    found = search_figures.sensitivity(points, "max")
    assert (found.rates, found.lost) == ([0.0012, 0.011, 0.11], [0.11])
    assert found.values == pytest.approx([0.7, 0.8, math.nan], nan_ok=True)
    alike = [search_figures.Trial(point.params, point.value, 0.0) for point in points]
    assert len(search_figures.sensitivity(alike, "max").rates) == 5  # nothing but the rate was varied


def test_heat_map(grid: list[Arm]) -> None:
    axis = heat_maps.beta3_heat_map(grid).axes[0]
    assert [text.get_text() for text in axis.texts] == ["0.5", "0.6", "×", "0.51", "0.61", "0.71"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    with pytest.raises(NoData, match=r"optimizer\.alpha1 were not varied"):
        heat_maps.alpha1_heat_map(grid)


def search(study: Path, costs: list[float | None]) -> None:
    folder = study / "search" / "digits-mlp-vradam-1"
    folder.mkdir(parents=True)
    trials = [
        {
            "number": number,
            "state": "finished" if cost is not None else "diverged",
            "params": {"optimizer.lr": 10.0**-number, "optimizer.alpha1": 3 * number, "optimizer.gate_on": "velocity"},
            "cost": cost,
            "seconds": 2.0,
        }
        for number, cost in enumerate(costs, 1)
    ]
    pruned = {"number": 9, "state": "pruned", "params": {}, "cost": None, "seconds": None}
    choices = {"task": "digits", "model": "mlp", "optimizer": "vradam"}
    settings = {"metric": None, "direction": None}
    content = {"name": "digits-mlp-vradam-1", "choices": choices, "settings": settings, "trials": [*trials, pruned]}
    (folder / "trials.json").write_text(json.dumps(content))


def test_tuning_budget_and_heat_map_of_trials(tmp_path: Path) -> None:
    make_run(tmp_path, 0.9, study="mine/confirm")
    search(tmp_path / "mine", [-0.5, -0.7, None, -0.9])
    arms = collect([tmp_path])
    trials, seconds = search_figures.tuning_budget(arms).axes
    k, expected = line(trials, "vradam")
    assert k == [1, 2, 3, 4]
    # sorted 0.5 (diverged, as bad as the worst), 0.5, 0.7, 0.9: the best of two of them
    assert expected[0] == pytest.approx(0.65)
    assert expected[1] == pytest.approx((0.5 + 0.7 * 2 + 0.9 * 3) / 6)
    assert list(seconds.lines[0].get_xdata()) == [2, 4, 6, 8]
    assert note(trials.figure) == "One search; band: 90 % of all draws of k trials"

    axis = heat_maps.alpha1_heat_map(arms).axes[0]
    rates, alphas = zip(*axis.collections[0].get_offsets(), strict=True)
    assert (rates, alphas) == (pytest.approx([0.1, 0.01, 1e-4]), (3, 6, 12))
    assert list(axis.collections[0].get_array()) == [0.5, 0.7, 0.9]


def test_the_spread_of_one_searchs_best() -> None:
    """Of 0.5, 0.5 (diverged), 0.7, 0.9: one draw is any of them, of two 0.5 alone is 1 draw in 6, of three none."""
    low, high = search_figures.spread_of_best([0.5, math.nan, 0.7, 0.9], "max")
    assert (low, high) == ([0.5, 0.5, 0.7, 0.9], [0.9] * 4)
    less_low, less_high = search_figures.spread_of_best([-0.5, math.nan, -0.7, -0.9], "min")
    assert (less_low, less_high) == ([-0.9] * 4, [-0.5, -0.5, -0.7, -0.9])
    many, _ = search_figures.spread_of_best([float(value) for value in range(100)], "max")
    assert many[0] == 5  # the 95th best of 100
    assert all(map(math.isnan, search_figures.spread_of_best([math.nan], "min")[0]))


def test_edge_of_stability(tmp_path: Path) -> None:
    """All seeds, with a band: sharpness 1, 2, 4 at step 5, of which the mean is 7/3."""
    for seed, sharpness in enumerate((1.0, 2.0, 4.0)):
        rows = [{"step": step, "eos/sharpness": sharpness, "eos/threshold": 4.0, "eos/ratio": sharpness / 4}
                for step in (5, 10)]  # fmt: skip
        write_rows(make_run(tmp_path, 1.0, seed=seed), rows)
    make_run(tmp_path, 1.0, optimizer="adamw")
    adamw, vradam = collect([tmp_path])
    with pytest.raises(NoData, match="probe=eos"):
        eos_figure.figure(adamw)
    sharpness_axis, ratio = (figure := eos_figure.figure(vradam)).axes
    assert line(sharpness_axis, "threshold") == ([5, 10], [4.0, 4.0])
    assert line(sharpness_axis, "sharpness") == ([5, 10], pytest.approx([7 / 3] * 2))
    assert line(ratio, "_ratio") == ([5, 10], pytest.approx([7 / 12] * 2))
    bands = [band for band in sharpness_axis.collections if len(band.get_paths()[0].vertices) > 4]
    heights = bands[0].get_paths()[0].vertices[:, 1]
    assert heights.min() > 0
    assert heights.max() > 4
    assert note(figure) == "Mean over 3 seeds; band: 95 % t interval of the mean"
    together = figures.eos_ratios([adamw, vradam])
    assert [text.get_text() for text in together.legends[0].get_texts()] == ["vradam"]


MAKERS: list[Callable[[list[Arm]], Figure]] = [figures.learning_curves, figures.time_to_target, cost_figure.cost]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_print_can_be_read(make: Callable[[list[Arm]], Figure], two_arms: list[Arm]) -> None:
    from vrbench.report.style import styled

    with styled():
        figure = make(two_arms)
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 8
    assert figure.get_figwidth() <= 7
    for axis in figure.axes:
        assert axis.get_xlabel()


def test_write_saves_what_there_is_and_says_why_the_rest_is_not(
    grid: list[Arm], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = figures.write(grid, tmp_path / "out")
    names = {path.name for path in written}
    per_task = ("curves", "lr-sensitivity", "beta3-lr", "cost")
    kinds = ["forest", "paired", *(f"{kind}-digits-mlp" for kind in per_task)]
    assert names == {f"{kind}.{suffix}" for kind in kinds for suffix in ("png", "svg", "pdf")} - MISSING
    assert all(path.stat().st_size > 1000 for path in written)
    assert {path.read_bytes()[:4] for path in written} == {b"\x89PNG", b"<?xm", b"%PDF"}
    said = capsys.readouterr().err.splitlines()
    told = [line.removeprefix("vrbench-report: no figure ").partition(":")[0] for line in said]
    drawn = {kind.removesuffix("-digits-mlp") for kind in kinds} - {"forest"}
    assert sorted(told) == sorted(set(figures.KINDS) - drawn)
    reason = "no run's rows have the time at which it reached the target"
    assert f"vrbench-report: no figure time-to-target: {reason} (digits mlp)" in said


MISSING = {f"forest.{suffix}" for suffix in ("png", "svg", "pdf")}
"""One seed each gives no interval."""


def test_the_same_runs_give_the_same_files(two_arms: list[Arm], tmp_path: Path) -> None:
    first, second = (
        {p.name: p.read_bytes() for p in figures.write(two_arms, tmp_path / name, kinds=["cost", "forest"])}
        for name in ("x", "y")
    )
    assert first == second
    assert len(first) == 6
    assert b"CreationDate" not in first["forest.pdf"]
    assert b"/FontFile2" in first["forest.pdf"]  # TrueType, embedded: text stays text
    assert b"training time per step (ms)</text>" in first["cost-digits-mlp.svg"]
    assert b"<dc:date>" not in first["cost-digits-mlp.svg"]


def test_curves_over_seconds_leave_evaluation_out(two_arms: list[Arm]) -> None:
    figure = figures.curves_over_time(two_arms)
    train, _ = figure.axes
    assert line(train, "fast") == ([1, 2, 3], pytest.approx([1 / 10, 1 / 20, 1 / 30]))
    assert line(train, "slow")[0] == [2, 4, 6]
    assert train.get_xlabel() == "training time (s)"


def test_rates(tmp_path: Path) -> None:
    for optimizer, own in (("adamw", {}), ("vradam", {"optim/gate": 0.5, "optim/velocity_sq": 2.0})):
        write_rows(make_run(tmp_path, 1.0, optimizer=optimizer), [{"step": 1, "optim/effective_lr": 0.1, **own}])
    figure = figures.rates(collect([tmp_path]))
    assert [axis.get_ylabel() for axis in figure.axes] == ["effective lr", "gate", "velocity²"]
    assert line(figure.axes[1], "vradam") == ([1], [0.5])
    assert note(figure) == "One seed; no band below 3 seeds"


def test_paired_differences(two_arms: list[Arm]) -> None:
    """Each seed's difference in the metric's unit; a seed of which one side diverged is marked at the edge."""
    from vrbench.report import paired_figure
    from vrbench.report.rivals import rivals

    (axis,) = paired_figure.figure(rivals(two_arms, 8)).axes
    assert axis.get_ylabel() == "Δ test accuracy"
    assert axis.get_title() == "slow − fast\ndigits, mlp"
    assert axis.get_xlabel() == "n = 3"
    points, cross = (next(own for own in axis.lines if own.get_marker() == marker) for marker in (POINT, "x"))
    assert (list(points.get_xdata()), list(points.get_ydata())) == ([0, 1], [0, 0])
    assert list(cross.get_xdata()) == [2]
    assert cross.get_ydata()[0] == 0.04  # worse is below


POINT = look_of("slow").marker


def test_an_svg_has_no_id_that_numpys_version_decides() -> None:
    drawn = '<svg><clipPath id="p0123456789"/><path id="mabcdef0123"/><use href="#mabcdef0123"/>{}</svg>'
    drawn = drawn.format('<g id="C0_0_00aa00aa00" clip-path="url(#p0123456789)"/><g id="xtick_1"/>')
    found = style.numbered(drawn)
    other = style.numbered(drawn.replace("p0123456789", "p99999999aa").replace("mabcdef0123", "m0000000000"))
    assert found == other
    (rest,) = set(re.findall(r'id="[pmC]\d-([0-9a-f]{6})"', found))
    assert f'<use href="#m1-{rest}"/>' in found
    assert f'<g id="C2-{rest}" clip-path="url(#p0-{rest})"/><g id="xtick_1"/>' in found
    assert rest not in style.numbered(drawn.replace("xtick_1", "xtick_2"))
