"""A published study: its tables come from its records alone, to the byte, and are what anybody computes from them."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from made_runs import make_run

from vrbench.report import forest, main, publish, tables
from vrbench.report.collect import collect
from vrbench.report.rivals import rivals

FILES = {"records.tar.xz", "tables.md", "verdicts.json", "provenance.json", "forest.svg"}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for seed in range(2000, 2008):
        for task, metric, direction in (("digits", "accuracy", "max"), ("pydoc", "loss", "min")):
            for optimizer, shift in (("adamw", 0.0), ("vradam", 0.05)):
                make_run(
                    tmp_path / "runs", 0.5 + shift + 0.01 * random.random(), task=task, metric=metric,
                    direction=direction, optimizer=optimizer, seed=seed, study="s/confirm",
                )  # fmt: skip
    plan = {"study": "s", "baseline": "adamw", "smallest_effect": "1%"}
    noted = {"digest": "0", "when": "then", "tests": 2, "runs": {"tune": 4, "confirm": 40}, "plan": plan}
    (tmp_path / "runs/s/plan.json").write_text(json.dumps(noted))
    return tmp_path / "runs/s"


def test_a_study_is_published_and_made_again_to_the_byte(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    assert {path.name for path in publish.publish(study, folder)} == FILES
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in FILES - {"records.tar.xz"}:
        (folder / name).unlink()
    with pytest.raises(SystemExit) as ended:
        main.main(["rebuild", str(folder)])
    assert ended.value.code == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    text = before["tables.md"].decode()
    assert "32 of 40 planned confirmation runs are over (32 finished)." in text
    assert "Study s: plan 0, registered then" in text
    assert "## vradam against adamw" in text
    assert json.loads(before["provenance.json"])["runs"] == 32


def test_runs_that_nothing_confirmed_are_counted_as_they_ended(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / "study", 0.9, seed=seed, status="diverged" if seed == 0 else "finished")
    publish.publish(tmp_path / "study", tmp_path / "out")
    assert "\n3 runs are over (1 diverged, 2 finished).\n" in (tmp_path / "out" / "tables.md").read_text()


def test_what_was_published_does_not_change_with_the_code(tmp_path: Path) -> None:
    code = {"files": {"vrbench/norms.py": "0" * 16}, "libraries": {}}
    for optimizer, seed in itertools.product(("adamw", "vradam"), (0, 1)):
        make_run(tmp_path / "runs", 0.5 + 0.1 * seed, optimizer=optimizer, seed=seed, study="s", code=code)
    assert "vrbench/norms.py" in tables.summary(collect([tmp_path / "runs/s"])).records[0]["stale"]
    publish.publish(tmp_path / "runs/s", tmp_path / "kept")
    assert "norms.py" not in (tmp_path / "kept/tables.md").read_text() + (tmp_path / "kept/verdicts.json").read_text()


PUBLISHED = sorted(
    path.parent for path in ROOT.glob("results/*/verdicts.json") if (path.parent / "records.tar.xz").exists()
)


@pytest.mark.slow
@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda folder: folder.name)
def test_the_committed_studies_are_made_again_to_the_byte(folder: Path, tmp_path: Path) -> None:
    made = tmp_path / folder.name
    made.mkdir()
    shutil.copy(folder / "records.tar.xz", made)
    for path in publish.rebuild(made):
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_verdicts_are_what_anybody_computes_from_the_records(study: Path, tmp_path: Path) -> None:
    publish.publish(study, tmp_path / "kept")
    numbers: dict[tuple[str, str, int], float] = {}
    with tarfile.open(tmp_path / "kept/records.tar.xz") as tar:
        for member in tar:
            if member.name.endswith("summary.json"):
                manifest = json.load(tar.extractfile(member.name.replace("summary", "manifest")))
                metrics = json.load(tar.extractfile(member))["metrics"]
                value = metrics.get("test/accuracy", metrics.get("test/loss"))
                choices = manifest["choices"]
                numbers[choices["task"], choices["optimizer"], manifest["seed"]] = value
    verdicts = json.loads((tmp_path / "kept/verdicts.json").read_text())["vradam against adamw"]
    for row in verdicts:
        differences = [
            numbers[row["task"], "vradam", seed] - numbers[row["task"], "adamw", seed] for seed in range(2000, 2008)
        ]
        assert row["difference"] == pytest.approx(np.mean(differences))
        signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
        sums = np.abs(signs @ np.array(differences))
        assert row["p"] == pytest.approx(np.mean(sums >= abs(np.sum(differences)) - 1e-12))
    assert {row["task"]: row["verdict"] for row in verdicts} == {"digits": "better", "pydoc": "worse"}


def test_the_forest_plot_has_every_comparison_with_the_sign_of_a_gain(study: Path) -> None:
    met = rivals(collect([study / "confirm"]), 8)
    digits, pydoc = forest.rows(met).lines
    assert (digits.word, pydoc.word) == ("better", "worse")
    assert digits.label == "vradam − adamw: digits, mlp"
    assert digits.low < digits.gain < digits.high
    assert digits.gain == pytest.approx(-pydoc.gain, rel=0.1)
    assert [digits.smallest, pydoc.smallest] == pytest.approx([1.0, 1.0])
    drawn = forest.plot(met)
    assert drawn is not None
    for row in drawn.rows:
        assert (row.gain > drawn.zero) == (row.row.gain > 0)
        assert row.low <= row.gain <= row.high
    (axis,) = forest.figure(met).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "vradam − adamw\ndigits, mlp", "vradam − adamw\npydoc, mlp"
    ]  # fmt: skip
    assert axis.get_xlabel() == "gain over adamw in % of its mean (test)"
    assert [text.get_text() for text in axis.texts] == [
        f"better (n = 8)\n{digits.difference}", f"worse (n = 8)\n{pydoc.difference}"
    ]  # fmt: skip
    assert digits.difference.startswith("Δ accuracy +0.0")
    assert pydoc.difference.startswith("Δ loss +0.0")  # the sign is that of the difference, and the gain is negative
    (only,) = forest.rows(rivals([arm for arm in collect([study / "confirm"]) if arm.task == "pydoc"], 8)).lines
    (found,) = [one for rival in met for one in rival.found if one.a.task == "pydoc"]
    assert only.gain == pytest.approx(-found.pairs.difference)  # one metric alone: the axis has its unit


def test_the_forest_plot_says_what_has_no_interval_and_how_many_tunings_there_were(study: Path) -> None:
    for seed in range(2000, 2008):
        for optimizer in ("adamw", "vradam"):
            lost = "diverged" if optimizer == "vradam" else "finished"
            make_run(study.parent, 1.0, task="hypergrid", optimizer=optimizer, seed=seed, study="s/confirm",
                     status=lost, tuned=TUNED)  # fmt: skip
    met = rivals(collect([study / "confirm"]), 8)
    drawn = forest.plot(met)
    assert drawn is not None
    (row,) = [one for one in drawn.rows if "hypergrid" in one.row.label]
    assert (row.gain, row.low, row.high) == (None, None, None)
    assert row.text == f"{row.row.word} (n = 8, R = 1, 8 diverged): no pair has finished"
    assert len(forest.figure(met).axes[0].texts) == 3


TUNED = {"search": "x", "trials": 1, "budget": 1, "sampler": "random", "seeds": [0], "metric": None, "params": {},
         "space": {}, "edges": []}  # fmt: skip


def test_what_cannot_be_published_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["publish", str(tmp_path)], "no run that is over"),
        (["rebuild", str(tmp_path)], "records.tar.xz: No such file"),
    ):
        with pytest.raises(SystemExit) as ended:
            main.main(words)
        assert ended.value.code == 2
        assert says in capsys.readouterr().err


def test_records_alone_are_no_look(study: Path, tmp_path: Path) -> None:
    assert [path.name for path in publish.publish(study, tmp_path / "kept", tables_too=False)] == ["records.tar.xz"]
    assert not list(study.glob("**/looks.jsonl"))


def test_a_study_that_was_looked_at_before_is_published_as_such(study: Path, tmp_path: Path) -> None:
    """With fewer seeds, then with all: by the anytime-valid test, and made again likewise."""
    late = [path for path in (study / "confirm").iterdir() if path.is_dir() and "-s2007-" in path.name]
    assert len(late) == 4
    for path in late:
        path.rename(tmp_path / path.name)
    publish.publish(study, tmp_path / "first")
    for path in late:
        (tmp_path / path.name).rename(path)
    publish.publish(study, tmp_path / "second")
    written = (tmp_path / "second/verdicts.json").read_bytes()
    tests = [
        {row["test"] for row in json.loads((tmp_path / name / "verdicts.json").read_text())["vradam against adamw"]}
        for name in ("first", "second")
    ]
    assert tests == [{"sign-flip"}, {"e-process"}]
    publish.rebuild(tmp_path / "second")
    assert (tmp_path / "second/verdicts.json").read_bytes() == written


def test_a_wide_interval_leaves_the_narrow_ones_readable(study: Path) -> None:
    """The axis is then logarithmic on both sides of 0, in the same order."""
    for seed in range(2000, 2008):
        for optimizer in ("adamw", "vradam"):
            value = 10.0 ** (seed % 3) if optimizer == "vradam" else 1.0
            make_run(study.parent, value, task="hypergrid", metric="l1", direction="min", optimizer=optimizer,
                     seed=seed, study="s/confirm")  # fmt: skip
    met = rivals(collect([study / "confirm"]), 8)
    drawn = forest.plot(met)
    assert drawn is not None
    (digits,) = [row for row in drawn.rows if "digits" in row.row.label]
    (wide,) = [row for row in drawn.rows if "hypergrid" in row.row.label]
    assert wide.row.high - wide.row.low > 100 * (digits.row.high - digits.row.low)
    assert digits.low - drawn.zero > 20
    assert wide.low < wide.gain < drawn.zero < digits.low < digits.gain < digits.high
    assert forest.figure(met).axes[0].get_xscale() == "symlog"


def test_vrbench_report_is_the_same_command(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vrbench.app.main import main as vrbench

    said = []
    for call, words in ((vrbench, ["vrbench", "report"]), (main.main, ["vrbench-report"])):
        monkeypatch.setattr(sys, "argv", [*words, "table", str(study)])
        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""
