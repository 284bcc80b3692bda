"""Run folders in, tables and verdicts out: numbers recomputed, known effects found, known nulls left alone."""

from __future__ import annotations

import csv
import html
import itertools
import json
import math
import random
import re
import statistics as plain
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from conftest import QUICK
from made_runs import make_run

import vrbench
from vrbench.report import compare, formats
from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.compare import judge
from vrbench.report.main import main
from vrbench.report.pairs import pair
from vrbench.report.smallest import Smallest
from vrbench.runs import index

SEEDS = range(10, 18)


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `vrbench-report` prints; it must succeed and say nothing else."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert (stop.value.code, shown.err) == (0, "")
    return shown.out


def made_study(root: Path, effects: dict[str, float], seeds: Sequence[int] = SEEDS) -> Path:
    """vradam is better than adamw by the effect of each task; both have the seed's noise, and some of their own."""
    noise = random.Random(0)
    for task, effect in effects.items():
        for seed in seeds:
            common = 0.9 + noise.gauss(0, 0.01)
            make_run(root, common + effect + noise.gauss(0, 0.002), task=task, optimizer="vradam", seed=seed)
            make_run(root, common + noise.gauss(0, 0.002), task=task, optimizer="adamw", seed=seed)
    return root


# ---- arms -----------------------------------------------------------------------------------------------------------


def test_runs_become_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 0):
        make_run(tmp_path, 0.5 + seed, seed=seed)
        make_run(tmp_path, 0.4, seed=seed, settings={"lr": 0.01})
        make_run(tmp_path, 0.3, seed=seed, optimizer="adamw", status="diverged" if seed else "finished")
    make_run(tmp_path, 0.0, optimizer="lion", status="unfinished")
    arms = collect([tmp_path, tmp_path / "made"])
    assert [(arm.label, len(arm.runs), len(arm.over), arm.diverged) for arm in arms] == [
        ("adamw", 2, 2, 1),
        ("lion", 1, 0, 0),
        ("vradam lr=0.001", 2, 2, 0),
        ("vradam lr=0.01", 2, 2, 0),
    ]
    assert arms[2].settings == {"optimizer.lr": "0.001"}
    assert arms[2].by_seed("test/accuracy") == arms[2].by_seed("best/val/accuracy") == {0: 0.5, 1: 1.5}
    assert arms[0].by_seed("test/accuracy") == {0: 0.3, 1: pytest.approx(math.nan, nan_ok=True)}
    assert (arms[1].metric, arms[1].direction) == ("accuracy", "max")  # told by the task's other arms
    assert arms[0].seconds == [2.0]
    assert capsys.readouterr().err == ""

    folders = sorted((tmp_path / "made").iterdir())
    named = collect([folder for folder in folders if folder.is_dir()])
    assert [(arm.label, len(arm.runs)) for arm in named] == [(arm.label, len(arm.runs)) for arm in arms]


def test_what_arms_leave_out_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0.5, status="unfinished")
    make_run(tmp_path, 0.5, study="again")
    make_run(tmp_path, 0.5, task="pydoc", status="unfinished")
    (arm,) = collect([tmp_path])
    assert [run.status for run in arm.runs] == ["finished"]
    assert capsys.readouterr().err.splitlines() == [
        "vrbench: digits mlp vradam: seed 0 of study made left out: another run has this configuration and seed",
        "vrbench: pydoc mlp vradam: left out with seed 0: no run is over, and its metric is not known yet",
    ]


def test_trials_of_a_search_stay_apart(tmp_path: Path) -> None:
    make_run(tmp_path, 0.9, seed=10, study="mine")
    make_run(tmp_path, 0.8, seed=0, study="mine/tune")
    (tmp_path / "mine" / "search").mkdir()
    (arm,) = collect([tmp_path])
    assert [run.manifest["seed"] for run in arm.runs] == [10]
    both = collect([tmp_path], tuning=True)
    assert [arm.label for arm in both] == ["vradam runs=others", "vradam runs=tuning"]
    (trials,) = collect([tmp_path / "mine" / "tune"])
    assert [run.manifest["seed"] for run in trials.runs] == [0]


def test_a_choice_stands_for_its_leaves(vrbench: Callable[..., int], tmp_path: Path) -> None:
    assert vrbench("schedule=constant", "optimizer.beta3=1.0", *QUICK) == 0
    assert vrbench("-m", "schedule=warmup_cosine", "schedule.warmup_epochs=1", "optimizer.beta3=1.0,0.5", *QUICK) == 0
    assert [arm.label for arm in collect([tmp_path])] == [
        "vradam beta3=0.5 schedule=warmup_cosine",
        "vradam beta3=1 schedule=constant",
        "vradam beta3=1 schedule=warmup_cosine",
    ]


# ---- verdicts -------------------------------------------------------------------------------------------------------


def test_compare_finds_an_effect_and_leaves_a_null_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_study(tmp_path, {"cifar10": 0.02, "digits": 0.0, "hypergrid": -0.02, "pydoc": 0.0})
    found = json.loads(report(capsys, "compare", "vradam", "adamw", tmp_path, "--format", "json"))
    verdicts = {row["task"]: row["verdict"] for row in found["rows"]}
    assert verdicts == {"cifar10": "better", "digits": "equivalent", "hypergrid": "worse", "pydoc": "equivalent"}
    assert found["overall"]["verdicts"] == {"better": 1, "worse": 1, "equivalent": 2, "insufficient data": 0}
    first = found["rows"][0]
    assert first["p"] == 2 / 256
    assert first["improvement"] == 1
    assert first["difference_low"] < 0.02 < first["difference_high"]
    swapped = json.loads(report(capsys, "compare", "adamw", "vradam", tmp_path, "--format", "json"))
    assert swapped["rows"][0]["verdict"] == "worse"
    strict = json.loads(
        report(capsys, "compare", "vradam", "adamw", tmp_path, "--format", "json", "--smallest-effect", "1e-6")
    )
    assert strict["rows"][1]["verdict"] == "insufficient data"
    assert strict["rows"][1]["seeds_least"] is None
    assert strict["rows"][1]["seeds_about"] >= 1


def test_too_few_seeds_say_how_many_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_study(tmp_path, {"cifar10": 0.02, "digits": 0.0, "hypergrid": 0.02, "pydoc": 0.0}, seeds=range(5))
    shown = report(capsys, "compare", "vradam", "adamw", tmp_path)
    assert shown.count("insufficient data (at least 3 more seeds for any verdict") == 4
    rows = json.loads(report(capsys, "compare", "vradam", "adamw", tmp_path, "--format", "json"))["rows"]
    for row in rows:
        assert row["seeds_least"] == 3
        assert (f"any verdict, about {row['seeds_about']} for this difference)" in shown) == (row["seeds_about"] > 3)
    assert any(row["seeds_about"] <= 3 for row in rows)
    assert "Overall: insufficient data 4" in shown


def numbers(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_a_diverged_run_is_the_worst() -> None:
    good, bad = numbers(*[0.9 + 0.001 * i for i in range(8)]), numbers(*[0.1] * 7, math.nan)
    pairs = pair(good, bad, "max", Smallest())
    (verdict,) = judge([pairs])
    assert (verdict.word, pairs.p, pairs.diverged_a, pairs.diverged_b) == ("better", 2 / 256, 0, 1)
    assert judge([pair(bad, good, "max", Smallest())])[0].word == "worse"
    assert (
        judge([pair(bad, good, "min", Smallest())])[0].word != "worse"
    )  # one diverged of eight: not the best any more
    nothing = pair(numbers(*[math.nan] * 8), good, "min", Smallest())
    assert judge([nothing])[0].word == "worse"
    assert math.isnan(nothing.difference)
    # two equal arms but for one diverged run: never equivalent
    equal = pair(good, {**good, 3: math.nan}, "max", Smallest())
    assert judge([equal])[0].word == "insufficient data"
    assert judge([pair(good, good, "max", Smallest())])[0].word == "equivalent"


def test_a_family_is_corrected_together() -> None:
    pairs = pair(numbers(*[0.95] * 4, *[0.94] * 3), numbers(*[0.9] * 7), "max", Smallest())
    assert pairs.p == 2 / 128
    assert [verdict.word for verdict in judge([pairs] * 3)] == ["better"] * 3  # 3 · 2/128 = 0.047
    assert [str(verdict) for verdict in judge([pairs] * 4)] == [
        "insufficient data (at least 1 more seed for any verdict)"
    ] * 4
    untested = pair({}, {}, "max", Smallest())
    assert str(judge([untested, pairs])[0]) == "insufficient data (at least 6 more seeds for any verdict)"


def test_enough_seeds_for_a_verdict_and_too_few_for_this_difference() -> None:
    a, b = numbers(*[0.91, 0.89] * 4), numbers(*[0.9, 0.895] * 4)
    (verdict,) = judge([pair(a, b, "max", Smallest.parse("0.0001"))])
    assert verdict.least is None
    assert verdict.about is not None
    assert str(verdict) == f"insufficient data (about {verdict.about} more seeds for this difference)"
    (few,) = judge([pair(numbers(0.91, 0.89), numbers(0.9, 0.895), "max", Smallest.parse("0.0001"))])
    assert str(few).startswith("insufficient data (at least 4 more seeds for any verdict, about ")


def test_a_difference_below_the_smallest_effect_is_no_improvement() -> None:
    a, b = numbers(*[0.9002 + 0.00001 * i for i in range(8)]), numbers(*[0.9] * 8)
    assert judge([pair(a, b, "max", Smallest.parse("1%"))])[0].word == "equivalent"
    assert judge([pair(a, b, "max", Smallest.parse("0.0001"))])[0].word == "better"
    assert str(Smallest.parse("0.5%")) == "0.5 %"
    for wrong in ("", "x", "-1", "nan", "1%%"):
        with pytest.raises(ValueError, match="smallest-effect="):
            Smallest.parse(wrong)


def test_names_of_arms(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        make_run(tmp_path, 0.5, settings={"lr": lr})
    make_run(tmp_path, 0.5, task="pydoc", metric="loss", direction="min")
    arms = collect([tmp_path])
    with pytest.raises(ValueError, match=r"names 2 arms of digits mlp; give the label of one: 'vradam lr=0.1', 'vrad"):
        compare.pick(arms, "vradam")
    assert compare.pick(arms, "vradam lr=0.1") == {("digits", "mlp"): arms[0]}
    with pytest.raises(ValueError, match="adam: no such optimizer or label; there are vradam"):
        compare.pick(arms, "adam")
    (found,) = compare.compare([(arms[0], arms[2])], "test", Smallest())
    assert str(found.verdict) == "not comparable: metric"


# ---- tables ---------------------------------------------------------------------------------------------------------


def test_tables_equal_what_metrics_jsonl_says(
    vrbench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten lines that know nothing of vrbench recompute every number of the table of runs that were really trained."""
    assert vrbench("-m", "optimizer=vradam,adamw", "seed=0,1,2,3", *QUICK) == 0
    capsys.readouterr()
    shown = json.loads(
        report(
            capsys, "table", tmp_path, "--split", "val", "--baseline", "adamw", "--format", "json", "--interval", "t"
        )
    )

    best: dict[str, dict[int, float]] = {}
    for folder in {path.parent for path in tmp_path.rglob("metrics.jsonl")}:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        _, _, optimizer, *_, seed, _ = folder.name.split("-")
        best.setdefault(optimizer, {})[int(seed[1:])] = max(r["val/accuracy"] for r in rows if "val/accuracy" in r)
    d = [best["vradam"][seed] - best["adamw"][seed] for seed in range(4)]
    sums = [abs(sum(x * s for x, s in zip(d, signs, strict=True))) for signs in itertools.product((-1, 1), repeat=4)]
    half = {name: 3.182446 * plain.stdev(values.values()) / 2 for name, values in best.items()}

    adamw, vradam = shown["rows"]
    for row in (adamw, vradam):
        mean = plain.fmean(best[row["optimizer"]].values())
        assert (row["n"], row["diverged"], row["unfinished"]) == (4, 0, 0)
        assert row["mean"] == pytest.approx(mean, abs=1e-12)
        assert (row["low"], row["high"]) == pytest.approx(
            (mean - half[row["optimizer"]], mean + half[row["optimizer"]]), rel=1e-6
        )
    assert vradam["difference"] == pytest.approx(plain.fmean(d), abs=1e-12)
    assert vradam["p"] == vradam["p_holm"] == sum(s >= abs(sum(d)) - 1e-12 for s in sums) / 16
    assert (vradam["verdict"], vradam["seeds_least"]) == ("insufficient data", 2)

    test = json.loads(report(capsys, "table", tmp_path, "--format", "json"))["rows"]
    for row in test:
        summaries = [
            json.loads(p.read_text()) for p in tmp_path.rglob("summary.json") if f"-{row['optimizer']}-" in str(p)
        ]
        assert row["mean"] == pytest.approx(plain.fmean(s["metrics"]["test/accuracy"] for s in summaries), abs=1e-12)
        assert row["train_seconds"] == pytest.approx(plain.fmean(s["seconds"]["train"] for s in summaries))


def test_one_table_in_four_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_study(tmp_path, {"digits": 0.02})
    make_run(tmp_path, 0.1, optimizer="sgd", status="diverged", seed=10)
    make_run(tmp_path, 0.123456789012345678, optimizer="sgd", seed=11)
    make_run(tmp_path, 0.1, optimizer="sgd", status="unfinished", seed=12)
    shown = {
        form: report(capsys, "table", tmp_path, "--baseline", "adamw", "--format", form) for form in formats.FORMATS
    }
    rows = json.loads(shown["json"])["rows"]
    assert [row["optimizer"] for row in rows] == ["adamw", "sgd", "vradam"]
    assert [row["verdict"] for row in rows] == [None, "insufficient data", "better"]
    assert (rows[1]["n"], rows[1]["diverged"], rows[1]["unfinished"], rows[1]["pairs"]) == (2, 1, 1, 2)
    assert rows[1]["mean"] == 0.123456789012345678
    assert rows[1]["low"] is None
    for told, row in zip(csv.DictReader(shown["csv"].splitlines()), rows, strict=True):
        for key, value in row.items():
            if isinstance(value, (int, float)):
                assert float(told[key]) == value
    assert "| accuracy ↑ | 0.1235\\* | 0.1235 | 2 | 1 | 1 | 2 |" in shown["markdown"]
    assert "95 % bootstrap-t interval" in shown["markdown"]
    assert "over the runs that finished" in shown["markdown"]
    assert "Left out, unfinished: digits mlp sgd, seed 12." in shown["markdown"]
    assert shown["latex"].count(r" \tabularnewline") == 3


NASTY = r"a_b & 50% #1 $x$ ~^\{} | <i>[x](y)* `c` β"


def nasty_table() -> formats.Table:
    return formats.Table(["task", "p"], [[NASTY, "1"], ["two\nlines", "↑ ± − ↓"]], [{"task": NASTY}], [NASTY])


def test_markdown_is_escaped() -> None:
    lines = formats.markdown(nasty_table()).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]} == {3}
    assert lines[2] == r"| a_b & 50% #1 $x$ \~^\\{} \| &lt;i>[x]\(y)\* \`c\` β | 1 |"
    assert lines[3].startswith("| two lines |")
    for text in ("p < 0.05 & n > 3", "a <b", "<3", "R&D; x", "&amp;", "<!--", "</b>", "&#38;"):
        tag = re.search(r"<[A-Za-z/!]|&#?\w+;", text) if text != "R&D; x" else re.search("&D;", text)
        assert (formats.escape_markdown(text) == text) == (tag is None)
        assert html.unescape(formats.escape_markdown(text)) == text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Missing command."),
        (["tabel", "."], "No such command 'tabel'."),
        (["table"], "Missing argument 'PATHS...'."),
        (["table", "nowhere"], "nowhere: no such folder"),
        (["table", "empty"], "empty: no run that is over"),
        (["table", "made", "--format", "xls"], "Invalid value for '--format': 'xls' is not one of"),
        (["table", "made", "--baseline", "sgd"], "sgd: no such optimizer or label; there are vradam"),
        (["compare", "vradam", "adamw", "made"], "adamw: no such optimizer or label; there are vradam"),
        (["compare", "vradam", "vradam", "made", "--smallest-effect", "big"], "smallest-effect=big: must be a share"),
        (["table", "broken"], "summary.json: not JSON"),
    ],
    ids=" ".join,
)
def test_a_wrong_use_is_one_line(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path, 0.5)
    (tmp_path / "empty").mkdir()
    (make_run(tmp_path, 0.5, study="broken") / "summary.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    shown = capsys.readouterr()
    assert (stop.value.code, shown.out) == (2, "")
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("vrbench-report: ")
    assert line in shown.err


def test_its_version_is_vrbench_s_installed_or_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: pytest.fail("there may be no metadata"))
    assert report(capsys, "--version") == f"vrbench {vrbench.__version__}\n"


def test_a_table_of_many_runs_reads_each_run_once_and_each_setting_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[Path] = []
    parsed: list[str] = []
    for remembered in (index._block, index._parsed):
        remembered.cache_clear()
    read_row, load = index.read_row, yaml.load
    monkeypatch.setattr(index, "read_row", lambda folder: read.append(folder) or read_row(folder))
    monkeypatch.setattr(index.yaml, "load", lambda text, loader: parsed.append(text) or load(text, loader))
    for arm, seed in itertools.product(range(6), range(4)):
        settings = {"lr": (arm + 1) / 1e6}
        folder = make_run(tmp_path, arm + seed / 10, settings=settings, seed=seed, study=f"study{arm % 2}")
    tables = [report(capsys, "table", tmp_path, "--format", "csv") for _ in range(2)]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == 1 + 6
    assert len(read) == 6 * 4, "the second table is made of the index"
    assert 0 < len(parsed) == len(set(parsed)), "the config of many runs is parsed once, but for numbers"
    (folder / "summary.json").touch()
    assert report(capsys, "table", tmp_path, "--format", "csv") == tables[0]
    assert read[6 * 4 :] == [folder]


def test_arms_are_shown_by_their_label(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5, settings={"betas": [0.9, 0.99]})
    make_run(tmp_path, 0.5, settings={"betas": [0.9, 0.95]})
    arms: list[Arm] = collect([tmp_path])
    assert [arm.label for arm in arms] == ["vradam betas=[0.9, 0.95]", "vradam betas=[0.9, 0.99]"]
