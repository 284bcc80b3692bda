"""`vrbench cite`: every source is in the bibliography, and a study cites its own and no other."""

from __future__ import annotations

from pathlib import Path

import bibtexparser
import pytest
import yaml
from conftest import ROOT
from made_runs import make_run

from vrbench import __version__
from vrbench.app import cite
from vrbench.app.project import CONF

YAMLS = sorted(CONF.rglob("*.yaml"))
METHODS = {"fisher1935", "student1908", "2208.08925", "2210.01948", "efron1993", "1606.04316", "holm1979", "2108.13264"}


def keys(text: str) -> set[str]:
    """The keys of what parses as BibTeX, all of it."""
    library = bibtexparser.parse_string(text)
    assert library.failed_blocks == []
    return {entry.key for entry in library.entries}


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> set[str]:
    assert cite.main(words) == 0
    return keys(capsys.readouterr().out)


def test_the_bibliography_parses_and_each_entry_is_complete() -> None:
    text = (ROOT / "vrbench/app/references.bib").read_text(encoding="utf-8")
    library = bibtexparser.parse_string(text)
    assert library.failed_blocks == []
    assert [entry.key for entry in library.entries] == list(cite.bibliography())
    for entry in library.entries:
        fields = {field.key: field.value for field in entry.fields}
        assert {"author", "title", "year"} <= fields.keys(), entry.key
        assert fields.get("eprint", entry.key) == entry.key


def test_every_source_that_a_yaml_names_is_in_the_bibliography_and_none_is_there_for_nothing() -> None:
    named = {key for path in YAMLS for key in cite.cited(path) if not key.startswith("(")}
    searched = {*cite.SAMPLERS.values(), *cite.PRUNERS.values(), "1907.10902", "1909.03004"}
    assert named - cite.bibliography().keys() == set()
    assert cite.bibliography().keys() - named == {*cite.ALWAYS.values(), *METHODS, *searched}


@pytest.mark.parametrize("group", [*cite.GROUPS, "task/tokenizer"])
def test_every_part_has_a_source_or_says_why_not(group: str) -> None:
    without = [path.stem for path in (CONF / group).glob("*.yaml") if cite.cited(path) == ["(its YAML names none)"]]
    assert without == []


def test_the_first_arxiv_id_of_an_optimizer_s_comment_is_among_its_sources() -> None:
    from vrbench.app.listing import described

    said = {path: described(path).arxiv for path in (CONF / "optimizer").glob("*.yaml")}
    assert len([arxiv for arxiv in said.values() if arxiv]) > 35
    assert [path.stem for path, arxiv in said.items() if arxiv and arxiv not in cite.cited(path)] == []


def test_one_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "optimizer=soap", "task/tokenizer=bpe") == {"2409.11321", "1508.07909"}
    assert printed(capsys) == {"vrbench", "1912.01703"}
    assert cite.main(["model=mlp"]) == 0
    assert capsys.readouterr().out == "% without a source: model=mlp (a plain network)\n"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizer=sop", "cite: optimizer=sop: no such YAML; did you mean soap? optimizer has "),
        ("optimiser=sgd", "cite: optimiser=sgd: no such YAML; optimiser has no such thing"),
        ("results/nowhere", "cite: results/nowhere: no such folder"),
    ],
)
def test_what_is_not_there_is_one_line(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cite.main([word]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"vrbench: {said}")
    assert told.err.count("\n") == 1


def test_a_yaml_of_one_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "optimizer/mine.yaml"
    own.parent.mkdir()
    own.write_text("# Mine.\n# cite: 2401.01234, 1412.6980\nlr: 1\n")
    assert cite.main(["--config-dir", str(tmp_path), "optimizer=mine"]) == 0
    text = capsys.readouterr().out
    assert keys(text) == {"2401.01234", "1412.6980"}
    assert "@misc{2401.01234,\n  title = {arXiv:2401.01234},\n  eprint = {2401.01234}," in text
    own.write_text("# cite: smith2020\n")
    assert cite.main(["--config-dir", str(tmp_path), "optimizer=mine"]) == 2
    assert capsys.readouterr().err.startswith("vrbench: cite: smith2020: must be an arXiv id")
    own.write_text("# cite: none\n")
    assert cite.main(["--config-dir", str(tmp_path), "optimizer=mine"]) == 0
    assert capsys.readouterr().out == "% without a source: optimizer=mine (none)\n"


def test_the_yamls_of_the_project_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "conf/optimizer/mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# cite: 2401.01234\nlr: 1\n")
    monkeypatch.chdir(tmp_path)
    assert printed(capsys, "optimizer=mine") == {"2401.01234"}


def test_a_study_cites_exactly_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight paired seeds of two optimizers on one task: one sign-flip test, and nothing was searched."""
    for seed in range(8):
        make_run(tmp_path, 0.9, optimizer="soap", seed=seed)
        make_run(tmp_path, 0.8 + seed / 1000, optimizer="adamw", seed=seed)
    test = {"fisher1935", "efron1993", "1606.04316"}
    digits = {"alpaydin1998", "pedregosa2011"}
    study = tmp_path / "made"
    assert printed(capsys, str(study)) == {"vrbench", "1912.01703", "2409.11321", "1711.05101", *digits, *test}
    assert not (study / "looks.jsonl").exists()


def test_a_study_with_a_part_whose_yaml_is_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0.9, optimizer="mine")
    assert cite.main([str(tmp_path / "made")]) == 0
    text = capsys.readouterr().out
    assert keys(text) == {"vrbench", "1912.01703", "alpaydin1998", "pedregosa2011"}
    assert "optimizer=mine (its YAML is not here: --config-dir names its folder)" in text.splitlines()[-1]


def test_one_optimizer_alone_has_no_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0.9, optimizer="lion", task="pydoc", model="lstm", study="s", choices={"probe": "eos"},
             overrides={"task.tokenizer._target_": "vrbench.data.tokenization.BPE"})  # fmt: skip
    lstm, eos, bpe = {"hochreiter1997", "1409.2329"}, {"2103.00065", "2207.14484"}, {"1508.07909"}
    assert printed(capsys, str(tmp_path / "s")) == {"vrbench", "1912.01703", "2302.06675", *lstm, *eos, *bpe}


def test_published_records_with_searches(capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"1711.05101", "sutskever2013", "2505.13196", "alpaydin1998", "pedregosa2011", "2106.04399", "2305.14594"}
    parts |= {"2201.13259", "2404.06395", "2405.18392"}
    searched = {"1907.10902", "1909.03004", "bergstra2012"}
    tests = {"student1908", "fisher1935", "1606.04316", "holm1979", "2108.13264"}
    found = printed(capsys, str(ROOT / "results/digits_hypergrid"))
    assert found == {"vrbench", "1912.01703", *parts, *searched, *tests}


def test_citation_cff_has_the_version_that_is_released() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
