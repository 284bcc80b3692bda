"""What users ask of figures (metric, arms, size, names), and looks and names that stay whatever else is shown."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from made_runs import make_run, report, write_rows
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox, BboxBase

from vrbench.report import figures, forest
from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.main import main
from vrbench.report.names import display
from vrbench.report.rivals import rivals
from vrbench.report.style import COLORS, Size, look_of, looks, styled
from vrbench.report.view import View, names_of


def shipped() -> dict[str, dict[str, object]]:
    """The settings of every optimizer of conf/, as a run's records have them."""
    return {
        path.stem: {f"optimizer.{key}": value for key, value in yaml.safe_load(path.read_text()).items()}
        for path in (ROOT / "conf/optimizer").glob("*.yaml")
    }


def test_an_optimizer_is_written_as_its_class_is_and_needs_no_entry() -> None:
    assert display("mine", {"optimizer._target_": "mypackage.rules.Mine"}) == "Mine"
    assert display("super_fast", {"optimizer._target_": "mypackage.rules.SuperFast"}) == "SuperFast"
    assert display("mine_twice", {"optimizer._target_": "mypackage.rules.Mine"}) == "Mine (mine_twice)"
    assert display("mine", {"optimizer._target_": "mypackage.rules.build"}) == "mine"
    assert display("mine", {}) == "mine"


def test_shipped_optimizers_have_a_name_each() -> None:
    names = {name: display(name, settings) for name, settings in shipped().items()}
    assert (names["adamw"], names["vradam"], names["sgd"]) == ("AdamW", "VRAdam", "SGD + Nesterov")
    assert len(set(names.values())) == len(names) > 40
    assert [name for name, shown in names.items() if name == shown or "_" in shown] == []


def test_a_name_that_the_settings_belie_is_not_given() -> None:
    settings = {**shipped()["sgd"], "optimizer.nesterov": False}
    assert display("sgd", settings) == "SGD"


def test_an_optimizer_looks_the_same_whatever_else_is_shown() -> None:
    both, many = looks([("vradam", "vradam"), ("adamw", "adamw")]), looks((name, name) for name in [*shipped(), "mine"])
    for name in ("vradam", "adamw"):
        assert both[name] == many[name] == look_of(name)
    assert looks([("mine", "mine")])["mine"] == many["mine"]
    assert len(set(many.values())) == len(many)
    usual = ("adamw", "vradam", "sgd", "radam", "rmsprop", "adam", "muon")
    assert {look_of(name).color for name in usual} == set(COLORS)


def test_arms_of_one_optimizer_share_its_colour_and_nothing_else() -> None:
    found = looks(("vradam", f"vradam lr={number:02}") for number in range(60))
    assert len(set(found.values())) == 60
    assert {look.color for look in found.values()} == {look_of("vradam").color}
    assert found["vradam lr=00"] == look_of("vradam")
    assert found["vradam lr=00"].dash != found["vradam lr=01"].dash
    assert found["vradam lr=00"].marker != found["vradam lr=01"].marker


@pytest.mark.parametrize(
    ("text", "width", "height"), [("single", 3.25, None), ("double", 6.75, None), ("5x2.5", 5.0, 2.5)]
)
def test_sizes(text: str, width: float, height: float | None) -> None:
    assert Size.parse(text) == Size(width, height)


def test_an_arm_looks_the_same_where_it_alone_is_drawn(study: Path) -> None:
    """adamw lr=0.2 is the second arm of its optimizer, also where the first was not asked for."""
    arms = collect([study])
    (second,) = [arm for arm in arms if arm.label == "adamw lr=0.2"]
    dashes = []
    for drawn in (arms, [second]):
        axis = figures.learning_curves(drawn, View(every=tuple(arms))).axes[0]
        (line,) = [line for line in axis.lines if str(line.get_label()).startswith("AdamW lr=0.2")]
        dashes.append((line.get_color(), line.get_marker(), str(line.get_linestyle())))
    assert dashes[0] == dashes[1]
    alone = figures.learning_curves([second]).axes[0].lines[0]
    assert alone.get_marker() != dashes[0][1]


CLASSES = {"adamw": "torch.optim.AdamW", "sgd": "torch.optim.SGD", "vradam": "vrbench.optimizers.vradam.VRAdam"}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three optimizers of three seeds, with accuracy as the primary metric; one of them at two rates."""
    for optimizer, rates in (("adamw", (0.1, 0.2)), ("vradam", (0.1,)), ("sgd", (0.1,))):
        for lr in rates:
            for seed in range(3):
                value = 0.8 + lr / 10 + seed / 1000
                settings = {"lr": lr, "_target_": CLASSES[optimizer]}
                make_run(tmp_path / "runs", value, optimizer=optimizer, seed=seed, settings=settings)
    return tmp_path / "runs"


def texts(written: str, kind: str) -> str:
    """The text of the SVG of a kind of figure."""
    (path,) = [
        Path(line) for line in written.splitlines() if Path(line).name.startswith(kind) and line.endswith(".svg")
    ]
    return path.read_text()


def test_options_reach_every_figure(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--arms", "vradam,adamw lr=0.2", "--names", "vradam=Ours,adamw lr=0.2=AdamW (tuned)", "--size", "4x5")
    written = report(capsys, "figures", study, "-o", tmp_path / "out", *options)
    for kind, there, not_there in (
        ("curves", ("Ours", "AdamW (tuned)"), ("VRAdam", "lr=0.1", "SGD")),
        ("cost", ("Ours", "AdamW (tuned)"), ("VRAdam", "lr=0.1", "SGD")),
        ("forest", ("Ours",), ("VRAdam", "SGD")),
        ("paired", ("Ours",), ("VRAdam", "SGD")),
    ):
        text = texts(written, kind)
        assert all(f">{name}" in text or f"{name}" in text for name in there), kind
        assert not any(name in text for name in not_there), kind
        assert 'width="288pt" height="360pt"' in text, kind


def test_what_is_shown_decides_no_verdict(study: Path) -> None:
    """Holm's family has all comparisons, of which one is shown."""
    arms = collect([study])
    found = rivals(arms, 8)
    whole, one = forest.rows(found), forest.rows(found, View(only=("vradam",)))
    assert len(whole.lines) == 2
    assert one.lines == [line for line in whole.lines if line.names.startswith("VRAdam")]


def test_another_metric(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = View(metric="loss").measured(collect([study]))
    assert {(arm.metric, arm.direction) for arm in arms} == {("loss", "min")}
    words = ["figures", str(study), "-o", str(tmp_path / "out"), "--metric", "loss", "--only", "forest,curves"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert "no figure forest: verdicts are of each task's primary metric" in shown.err
    assert "training loss ↓" in texts(shown.out, "curves")
    assert "accuracy" not in texts(shown.out, "curves")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--arms", "lamb"), "arms=lamb: no such optimizer or label; there are adamw, sgd, vradam"),
        (("--names", "lamb=LAMB"), "names=lamb: no such optimizer or label; there are adamw, sgd, vradam"),
        (("--names", "vradam"), "names=vradam: must be old=new, an optimizer or label and what to write"),
        (("--metric", "f1"), "metric=f1: no run has it for validation; there are accuracy, loss"),
        (("--metric", "loss:down"), "metric=loss:down: say which way is better, loss:min or loss:max"),
        (("--size", "huge"), "size=huge: must be single (3.25 in), double (6.75 in), text (5.5 in) or WxH in inches"),
        (("--size", "nanx3"), "size=nanx3: must be"),
        (("--size", "1x1"), "size=1x1: must be"),
        (("--only", "pie"), "only=pie: no such figure; there are forest, paired, curves"),
    ],
)
def test_a_wrong_option_is_one_line(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str], says: str
) -> None:
    line = report(capsys, "figures", study, "-o", tmp_path / "out", *options, code=2)
    assert line.startswith(f"vrbench-report: {says}")
    assert not list((tmp_path / "out").glob("*"))


def test_names_may_hold_equals_signs_on_the_left() -> None:
    assert names_of("adamw lr=0.1=AdamW, tuned=x") == {"adamw lr=0.1": "AdamW", "tuned": "x"}
    assert names_of("") == {}


TWELVE = ("adamw", "vradam", "sgd", "adam", "radam", "rmsprop", "nadam", "lion", "nadamw", "adan", "vrsgd", "signsgd")


@pytest.fixture
def twelve(tmp_path: Path) -> tuple[list[Arm], dict[str, str]]:
    """Twelve arms of one seed, and a long name for each."""
    for optimizer in TWELVE:
        rows = [{"step": step, "val/accuracy": step / 30, "time/steps_per_s": 1.0} for step in (10, 20, 30)]
        write_rows(make_run(tmp_path, 0.8, optimizer=optimizer), rows)
    arms = collect([tmp_path])
    return arms, {arm.optimizer: f"{arm.optimizer} with a name that takes some room" for arm in arms}


@pytest.mark.parametrize("size", [None, "single", "double", "3.25x7"])
@pytest.mark.parametrize("kind", ["curves", "cost", "time-to-target"])
def test_twelve_arms_and_their_texts_stay_inside_the_picture(
    twelve: tuple[list[Arm], dict[str, str]], kind: str, size: str | None
) -> None:
    arms, names = twelve
    view = View(Size.parse(size) if size else None, names)
    with styled():
        figure = figures.PER_TASK[kind](arms, view)
        FigureCanvasAgg(figure).draw()
        shown = words_in(figure)
        assert sum(name.split()[0] in text.get_text() for name in names.values() for text in shown) >= 12
        assert [text.get_text() for text in shown if not inside(text.get_window_extent(), figure.bbox)] == []
        assert min(axis.get_window_extent().height for axis in figure.axes) > 0.9 * figure.dpi
        assert min(axis.get_window_extent().width for axis in figure.axes) > 1.2 * figure.dpi


def words_in(figure: Figure) -> list[Text]:
    """All texts but numbers of ticks, of which some lie beyond the axis and are not drawn."""
    return [text for text in figure.findobj(Text) if re.search(r"[^\W\d]", text.get_text()) and text.get_visible()]


def inside(box: Bbox, whole: BboxBase) -> bool:
    return bool(box.x0 > whole.x0 - 1 and box.x1 < whole.x1 + 1 and box.y0 > whole.y0 - 1 and box.y1 < whole.y1 + 1)


def test_a_height_that_leaves_no_room_is_refused(twelve: tuple[list[Arm], dict[str, str]]) -> None:
    arms, names = twelve
    with pytest.raises(ValueError, match=r"^size=3.25x3: too low for what is drawn; it takes \d\.\d inches"):
        figures.learning_curves(arms, View(Size(3.25, 3.0), names))


@pytest.mark.parametrize("size", ["single", "double"])
@pytest.mark.parametrize("count", [1, 30])
def test_a_forest_of_one_to_thirty_comparisons(tmp_path: Path, count: int, size: str) -> None:
    for number in range(count):
        for optimizer, shift in (("adamw", 0.0), ("vradam", 0.02)):
            for seed in range(2):
                value = 0.8 + shift + (seed + number) / 1000
                make_run(tmp_path, value, task=f"task_{number:02}", optimizer=optimizer, seed=seed)
    with styled():
        figure = forest.figure(rivals(collect([tmp_path]), 8), View(Size.parse(size)))
        FigureCanvasAgg(figure).draw()
        shown = words_in(figure)
        told = [text for text in figure.axes[0].texts if "(n = 2)" in text.get_text()]
        assert [text.get_text() for text in shown if not inside(text.get_window_extent(), figure.bbox)] == []
        assert len(told) == count
        boxes = sorted((text.get_window_extent() for text in told), key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))  # none over another
        assert figure.get_figheight() < 9.5 or size == "single"
    unit = "accuracy" if count == 1 else "% of its mean"
    assert unit in figure.axes[0].get_xlabel()
