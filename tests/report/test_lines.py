"""Bands that stay positive, axes that no diverged arm stretches, and what stands in a picture about both."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_runs import make_run, write_rows

from vrbench.report import eos_figure, figures, lines
from vrbench.report.chart import HEIGHT, TOP, chart
from vrbench.report.collect import collect
from vrbench.report.curves import Curve, curve
from vrbench.report.lines import limits
from vrbench.report.style import look_of


def made(mean: list[float], ends: list[tuple[float, float]] | None = None) -> Curve:
    nothing = [math.nan] * len(mean)
    return Curve([float(step) for step in range(len(mean))], mean, nothing, nothing, 3, ends or [])


def seeds(root: Path, values: list[float], key: str = "train/loss", **options: object) -> None:
    for seed, value in enumerate(values):
        write_rows(make_run(root, 1.0, seed=seed, **options), [{"step": 1, key: value}, {"step": 2, key: value}])  # type: ignore[arg-type]


# ---- bands ----------------------------------------------------------------------------------------------------------


def test_the_band_of_a_positive_quantity_is_positive(tmp_path: Path) -> None:
    """0.01, 0.01, 1: Student's own interval would begin at -1.1."""
    seeds(tmp_path, [0.01, 0.01, 1.0])
    (arm,) = collect([tmp_path])
    found = curve(arm, "train/loss")
    assert found is not None
    mean, error = 1.02 / 3, 0.33  # of the standard deviation 0.99 / √3
    factor = math.exp(4.302652729911275 * error / mean)
    assert found.low == pytest.approx([mean / factor] * 2)
    assert found.high == pytest.approx([mean * factor] * 2)
    assert min(found.low) > 0


def test_a_narrow_band_is_students(tmp_path: Path) -> None:
    seeds(tmp_path, [0.999, 1.0, 1.001])
    (arm,) = collect([tmp_path])
    found = curve(arm, "train/loss")
    assert found is not None
    half = 4.302652729911275 * 0.001 / math.sqrt(3)
    assert found.high[0] - 1 == pytest.approx(half, rel=0.01)
    assert 1 - found.low[0] == pytest.approx(half, rel=0.01)


def test_a_quantity_of_both_signs_has_a_symmetric_band(tmp_path: Path) -> None:
    seeds(tmp_path, [-1.0, 0.0, 1.0])
    (arm,) = collect([tmp_path])
    found = curve(arm, "train/loss")
    assert found is not None
    assert found.high[0] == pytest.approx(-found.low[0]) == pytest.approx(4.302652729911275 / math.sqrt(3))


def test_each_tuning_is_one_observation(tmp_path: Path) -> None:
    """Three tunings of two seeds each: the band is over three means, not over six seeds."""
    space = {"optimizer": {"lr": {"low": 0.1, "high": 1.0}}}
    for replicate, value in enumerate((1.0, 2.0, 6.0)):
        tuned = {
            "replicate": replicate,
            "space": {"optimizer.lr": space},
            "params": {"optimizer.lr": 0.1 + replicate},
            "budget": 1,
            "sampler": "random",
            "metric": None,
        }
        for seed in range(2):
            folder = make_run(tmp_path, 0.5, seed=10 * replicate + seed, settings={"lr": 0.1 + replicate}, tuned=tuned)
            write_rows(folder, [{"step": 1, "train/loss": value + (seed - 0.5) / 10}])
    (arm,) = collect([tmp_path])
    assert len(arm.parts) == 3
    found = curve(arm, "train/loss")
    assert found is not None
    assert (found.count, found.mean) == ("3 tunings", pytest.approx([3.0]))
    error = math.sqrt((4 + 1 + 9) / 2 / 3)
    assert found.high == pytest.approx([3 * math.exp(4.302652729911275 * error / 3)])


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_a_diverged_arm_does_not_stretch_the_axis() -> None:
    good, bad = made([2.0, 1.0, 0.1]), made([2.0, 1e33, 1e33], [(2.0, 1e33)])
    found = limits([good, bad])
    assert found.logarithmic
    assert found.low == pytest.approx(0.1 / 1.3)
    assert found.high < 100
    assert limits([good]).high == pytest.approx(2.0 * 1.3)


def test_nor_does_one_that_finished_far_out() -> None:
    lost = made([2.0, 1e10, 1e20])
    assert limits([made([2.0, 1.0, 0.1]), made([2.0, 1.5, 0.2]), lost]).high < 100
    assert limits([lost]).high > 1e20  # there is nothing else to be seen


def test_nor_on_an_axis_of_both_signs() -> None:
    good, other, bad = made([-1.0, 0.0, 1.0]), made([-2.0, 0.0, 1.0]), made([0.0, -1e33, 5.0])
    found = limits([good, other, bad])
    assert not found.logarithmic
    assert -20 < found.low < -2
    assert 1 < found.high < 20


def test_a_line_that_is_flat_and_a_line_to_draw_are_inside() -> None:
    assert limits([made([0.0, 0.0])]).low < 0 < limits([made([0.0, 0.0])]).high
    found = limits([made([0.1, 0.2])], rule=1.0)
    assert found.high > 1.0
    assert limits([made([math.nan])]).low < limits([made([math.nan])]).high


def test_where_more_is_better_the_axis_is_not_logarithmic() -> None:
    accuracy = made([0.1, 0.9])
    assert limits([accuracy]).logarithmic
    assert not limits([accuracy], edge="bottom").logarithmic


def test_what_is_outside_is_marked_at_the_edge(tmp_path: Path) -> None:
    """A run that diverged by ×, at the step of its last row; a line beyond the axis by a triangle."""
    seeds(tmp_path, [1.0, 1.1, 1.2], optimizer="adamw")
    for seed in range(3):
        folder = make_run(tmp_path, 1.0, optimizer="sgd", seed=seed, status="diverged")
        write_rows(folder, [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1e33}])
    figure = figures.learning_curves(collect([tmp_path]))
    (axis,) = figure.axes
    assert axis.get_ylim()[1] < 100
    (cross,) = [line for line in axis.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert (list(cross.get_xdata()), list(cross.get_ydata())) == ([2, 2, 2], [0.97] * 3)
    (triangle,) = [line for line in axis.lines if line.get_label() == "_beyond"]
    assert (triangle.get_marker(), triangle.get_color()) == ("^", look_of("sgd").color)
    title = " ".join(figure.legends[0].get_title().get_text().split())
    assert title == ("Mean over 3 seeds; band: 95 % t interval of the mean; ×: a run diverged; △▽: beyond the axis")


def test_the_pages_charts_have_the_same_limits() -> None:
    drawn = chart("loss", [("a", look_of("adamw"), made([2.0, 1.0, 0.1])),
                           ("b", look_of("sgd"), made([2.0, 1e33], [(1.0, 1e33)]))])  # fmt: skip
    assert [text for _, text in drawn.y_ticks] == ["0.1", "0.2", "0.5", "1", "2"]
    assert [y for _, y in drawn.lines[1].ends] == [TOP + 6]
    down = chart("accuracy", [("b", look_of("sgd"), made([0.1, 0.2], [(1.0, 0.2)]))], edge="bottom")
    assert down.lines[0].ends[0][1] > HEIGHT / 2
    assert down.note == "Mean over 3 seeds; no band below 3 seeds; ×: a run diverged"


def test_how_many_seeds_there_are_is_said_of_each_arm_where_they_differ(tmp_path: Path) -> None:
    seeds(tmp_path, [1.0, 2.0, 3.0], optimizer="adamw")
    seeds(tmp_path, [1.0, 2.0, 3.0, 4.0], optimizer="vradam")
    figure = lines.over(collect([tmp_path]), {"train/loss": "loss"}, figures.DEFAULT, "title")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["adamw, 3 seeds", "vradam, 4 seeds"]
    title = figure.legends[0].get_title().get_text()
    assert title == "Mean over 3–4 seeds; band: 95 % t interval of the mean"


def test_runs_that_diverged_before_their_first_row_are_marked_too(tmp_path: Path) -> None:
    seeds(tmp_path, [1.0, 1.1, 1.2], optimizer="adamw")
    for seed in range(2):
        write_rows(make_run(tmp_path, 1.0, optimizer="sgd", seed=seed, status="diverged"), [{"step": 1, "epoch": 0.1}])
    figure = figures.learning_curves(collect([tmp_path]))
    (cross,) = [line for line in figure.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert list(cross.get_xdata()) == [30, 30]  # the steps of their summaries
    assert figure.axes[0].get_xlim()[1] > 30
    title = " ".join(figure.legends[0].get_title().get_text().split())
    assert title == "Mean over 3 seeds; band: 95 % t interval of the mean; ×: a run diverged"


def test_of_one_step_alone_the_interval_is_inside() -> None:
    one = Curve([5.0], [1.0], [0.8], [1.2], 3, [])
    found = limits([one, one])
    assert found.low < 0.8 < 1.2 < found.high


def test_one_measurement_of_the_edge_is_drawn(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """matplotlib warns of axes that begin where they end."""
    write_rows(make_run(tmp_path, 1.0), [{"step": 4, "eos/sharpness": 3.0, "eos/threshold": 4.0, "eos/ratio": 0.75}])
    (arm,) = collect([tmp_path])
    low, high = eos_figure.figure(arm).axes[0].get_xlim()
    assert low < 4 < high
    assert not recwarn
