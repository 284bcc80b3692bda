"""Tables for LaTeX: what is bold, which columns, how numbers are written; compiled by a real TeX where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_runs import eight, make_run, report

from vrbench.report import formats
from vrbench.report.latex import escape_latex, latex
from vrbench.report.numerals import Numerals
from vrbench.report.statistics import Interval

NASTY = r"""a_b & 50% #1 $x$ ~^\{} | <i>[x](y)* `c` "q" β é ⟨"""


def study(root: Path) -> Path:
    """vradam is better than adamw, lion's mean is the best of all and says nothing: two seeds diverged."""
    eight(root, 0.8, "adamw")
    eight(root, 0.82, "vradam", settings={"note": "a_b & 50%"})
    for seed in range(8):
        lost = "diverged" if seed < 4 else "finished"
        make_run(root, 0.95 + seed / 1000, optimizer="lion", seed=seed, status=lost)
    return root


def cells(text: str, first: str) -> list[str]:
    """The cells of the row that begins with it and has its optimizer second or later."""
    (line,) = [line for line in text.splitlines() if f"& {first} &" in line or line.startswith(f"{first} &")]
    return [cell.strip() for cell in line.removesuffix(r"\\").removesuffix(r"\tabularnewline").split("&")]


def test_bold_is_what_a_verdict_calls_better_and_never_the_best_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path)
    told = report(capsys, "table", tmp_path, "--baseline", "adamw", "--format", "latex")
    assert re.findall(r"\\textbf\{(.*?) ", told) == ["0.8235"]
    assert "Bold: better by the verdict" in told
    assert r"\textbf" not in report(capsys, "table", tmp_path, "--format", "latex")
    for a, b in (("vradam", "adamw"), ("adamw", "vradam")):
        assert re.findall(r"\\textbf\{(.*?)\}", report(capsys, "compare", a, b, tmp_path, "--format", "latex")) == [
            "0.8235"
        ]
    assert r"\textbf" not in report(capsys, "compare", "lion", "adamw", tmp_path, "--format", "latex")


def test_the_baseline_is_bold_where_every_other_arm_is_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eight(tmp_path, 0.8, "adamw")
    eight(tmp_path, 0.7, "sgd")
    told = report(capsys, "table", tmp_path, "--baseline", "adamw", "--format", "latex")
    assert re.findall(r"\\textbf\{(.*?) ", told) == ["0.8035"]
    eight(tmp_path, 0.8, "lion")
    told = report(capsys, "table", tmp_path, "--baseline", "adamw", "--format", "latex")
    assert r"\textbf" not in told


def test_caption_label_columns_and_decimals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path)
    told = report(
        capsys, "compare", "vradam", "adamw", tmp_path, "--format", "latex", "--caption", "100% & more",
        "--label", "tab:one two", "--columns", "task,vradam,p (Holm)", "--columns", "diff", "--decimals", "3",
    )  # fmt: skip
    assert r"\caption{100\% \& more}" in told
    assert r"\label{tab:one-two}" in told
    assert r"task & vradam & p (Holm) & difference \\" in told
    assert cells(told, "digits") == ["digits", r"\textbf{0.824}", "0.0078", "0.020 {[}0.020, 0.020{]}"]
    plain = report(capsys, "table", tmp_path, "--format", "latex")
    assert r"\begin{table}" in plain
    assert r"\label{tab:results}" in plain
    assert "Test split: one row for each configuration" in plain


def test_columns_and_spread_are_for_other_formats_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path)
    shown = report(capsys, "table", tmp_path, "--columns", "optimizer,test", "--spread", "sd", "--decimals", "2")
    assert "| adamw | 0.80 ± 0.00 |" in shown
    assert "mean over seeds ± s.d.;" in shown
    assert "| adamw | 0.8035 ± 0.0024 |" in report(capsys, "table", tmp_path, "--columns", "optimizer,test",
                                                   "--spread", "sd")  # fmt: skip
    assert "| adamw | 0.8035 |" in report(capsys, "table", tmp_path, "--columns", "optimizer,test", "--spread", "none")
    chosen = report(capsys, "table", tmp_path, "--format", "csv", "--columns", "optimizer,mean,n")
    assert chosen.splitlines()[0] == "optimizer,mean,n"
    versus = report(capsys, "table", tmp_path, "--baseline", "adamw", "--columns", "- adamw, verdict")
    assert versus.splitlines()[0] == "| − adamw | verdict |"
    for words, says in (
        (["--columns", "nothing"], "columns=nothing: no such column; there are 'task', "),
        (["--caption", "x"], "caption=x: is for --format latex"),
        (["--format", "csv", "--decimals", "2"], "format=csv: has all digits"),
    ):
        assert says in report(capsys, "table", tmp_path, *words, code=2)


def test_numbers_with_what_stands_beside_them() -> None:
    one, nan = Interval(0.9, 0.95), float("nan")
    assert Numerals().measured(0.93, one, 0.02) == "0.93 [0.9, 0.95]"
    assert Numerals(3).measured(0.93, one, 0.02) == "0.930 [0.900, 0.950]"
    assert Numerals(spread="sd").measured(0.93, one, 0.0213) == "0.930 ± 0.021"
    assert Numerals(spread="sd").measured(123.4, one, 21.3) == "123 ± 21"
    assert Numerals(spread="sd").measured(0.02, one, 1e-17) == "0.0200 ± 0.0000"
    assert Numerals(spread="sd").measured(0.0, one, 0.0) == "0.0000 ± 0.0000"
    assert Numerals(1, "sd").measured(0.93, one, 0.0213) == "0.9 ± 0.0"
    assert Numerals(spread="sd").measured(0.93, one, nan) == "0.93"
    assert Numerals(spread="none").measured(0.93, one, 0.02) == "0.93"
    assert Numerals().measured(nan, Interval(nan, nan), nan) == "nan"


def nasty_table() -> formats.Table:
    return formats.Table(["task", "p"], [[NASTY, "-1"], ["two\nlines", "↑ ± − ↓"]], [{"task": NASTY}], [NASTY],
                         frozenset({"p"}), caption=NASTY)  # fmt: skip


def test_special_characters_are_escaped() -> None:
    cell = escape_latex(NASTY)
    bare = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\{[\[\]]\}|\\\(\\\w+\\\)", "", cell)
    assert not set(bare) & set(r"&%$#_{}\~^<>|`[]")
    assert cell.endswith(r"\(\beta\) U+00E9 U+27E8")
    assert escape_latex("↑ −") == r"\(\uparrow\) \(-\)"
    assert r"\begin{tabular}{p{0.2\linewidth}r}" in latex(nasty_table())
    assert r"& \(-\)1 \tabularnewline" in latex(nasty_table())


def test_siunitx_columns_have_room_for_their_numbers() -> None:
    rows = [["0.9728 ± 0.0073"], ["-12.97 ± 0.11*"], ["nan"], [""]]
    told = latex(formats.Table(["x"], rows, [], [], frozenset({"x"}), bold=frozenset({(0, "x")})), siunitx=True)
    assert r"S[table-format=-2.4(2), separate-uncertainty, mode=text, detect-weight" in told
    assert "table-space-text-post={*}" in told
    assert r"\bfseries 0.9728 \pm 0.0073 \\" in told
    assert r"-12.97 \pm 0.11{*} \\" in told
    assert r"{nan} \\" in told
    assert r"{x} \\" in told
    words = latex(formats.Table(["x"], [["a lot"]], [], [], frozenset({"x"})), siunitx=True)
    assert r"\begin{tabular}{r}" in words


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize("spread", ["ci", "sd", "none"])
@pytest.mark.parametrize("siunitx", [False, True])
def test_it_compiles(siunitx: bool, spread: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an error and without a box that is too full, which would lie beside the page."""
    study(tmp_path)
    tuned = {"search": "s", "trials": 4, "budget": 4, "sampler": "random", "seeds": [0], "metric": "val/accuracy",
             "params": {"optimizer.lr": 0.001}, "space": {"optimizer.lr": {"low": 1e-4, "high": 0.1, "log": True}},
             "edges": []}  # fmt: skip
    eight(tmp_path, 0.3, "radam", task="pydoc", metric="loss", direction="min", tuned=tuned)
    eight(tmp_path, 0.31, "adamw", task="pydoc", metric="loss", direction="min")
    options = ["--format", "latex", "--spread", spread, *(["--siunitx"] if siunitx else [])]
    parts = [
        report(capsys, "table", tmp_path, "--baseline", "adamw", "--label", "tab:all", "--columns",
               "optimizer,metric,test,median,− adamw,p (Holm)", *options),
        report(capsys, "table", tmp_path, "--baseline", "adamw", "--label", "tab:whole", *options),
        report(capsys, "compare", "vradam", "adamw", tmp_path, "--label", "tab:two", *options),
        latex(nasty_table(), label="tab:nasty", siunitx=siunitx),
    ]  # fmt: skip
    body = "\n".join(parts) + r"Tables \ref{tab:all}, \ref{tab:two} and \ref{tab:nasty}."
    packages = r"\usepackage{booktabs}" + (r"\usepackage{siunitx}" if siunitx else "")
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "x.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    for _ in range(2):
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert result.returncode == 0, result.stdout[-2000:]
    assert "undefined" not in result.stdout
