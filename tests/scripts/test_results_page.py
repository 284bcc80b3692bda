"""docs/results.md, the README's findings and first table hold what the committed records give, and nothing typed."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT
from scipy import stats

TEMPLATES = sorted((ROOT / "scripts" / "pages").glob("*.jinja"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import results_page

    monkeypatch.setattr(sys, "argv", ["results_page.py", "--check"])
    return results_page


def test_the_pages_are_what_the_records_give_and_others_with_another_verdict(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in script.pages().items():
        assert path.read_text() == text, f"{path}: python scripts/results_page.py writes it"

    control = script.study("digits_control")
    tables = control.read("verdicts.json")
    tables["vradam against adamw"][0]["mean_a"] += 0.001
    read = type(control).read
    others = {(control, "verdicts.json"): tables}
    monkeypatch.setattr(type(control), "read", lambda one, name: others.get((one, name)) or read(one, name))
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 1
    assert set(capsys.readouterr().out.split()) == {"docs/results.md", "README.md"}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_number_that_was_measured_is_typed(template: Path) -> None:
    typed = re.sub(r"\{[{%].*?[%}]\}", "", template.read_text(), flags=re.DOTALL)
    assert re.findall(r"\d[.,]\d", re.sub(r"arXiv[ :]\d+\.\d+", "", typed)) == []


def test_the_curves_of_a_study_that_is_over_are_among_the_files(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "render", lambda template: "")
    monkeypatch.setattr(script, "CURVES", {"digits_control": "curves.svg", "nowhere": "curves.svg"})
    monkeypatch.setattr(script.plot_figure2, "drawn", lambda study: study.folder.name.encode())
    assert {
        path.relative_to(ROOT).as_posix(): text for path, text in script.pages().items() if path.suffix == ".svg"
    } == {"results/digits_control/curves.svg": "digits_control"}


def test_a_file_that_is_not_there_is_not_as_it_should_be(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "pages", lambda: {ROOT / "results" / "nowhere.svg": ""})
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().out.split() == ["results/nowhere.svg"]


def test_a_factor_is_that_of_the_mean_logarithm(script: ModuleType) -> None:
    logarithms = [math.log(value) for value in (1.0, 2.0, 4.0)]
    low, high = (math.exp(bound) for bound in stats.t.interval(0.95, 2, math.log(2), math.log(2) / math.sqrt(3)))
    assert script.factor(logarithms) == f"2 [{low:.2g}, {high:.2g}]"


def test_verdicts_are_told_with_their_tasks(script: ModuleType) -> None:
    rows = [
        {"task": task, "verdict": verdict, "size": size}
        for task, verdict, size in (
            ("a", "worse", "by how much is open"),
            ("b", "equivalent", ""),
            ("c", "equivalent", ""),
        )
    ]
    assert script.by_verdict(rows) == "equivalent on b, c; worse on a (by how much is open)"
