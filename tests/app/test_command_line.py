"""What people type: words on either side of -m, `~`, values that want quotes, keys of other tools."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vrbench.app import command_line
from vrbench.app.main import COMMANDS, main

SHORT = ("logger=none", "trainer.max_steps=2", "trainer.eval_every=2", "trainer.threads=1")
SAID = [
    ("optimizer=adamw,sgd", "optimizer=adamw,sgd: several values are a multirun: vrbench -m optimizer=adamw,sgd …"),
    ("lr=0.1", "lr: no such key; did you mean optimizer.lr?"),
    ("learning_rate=0.1", "learning_rate: no such key; did you mean optimizer.lr?"),
    ("optimizer.learning_rate=0.1", "optimizer.learning_rate: no such key; did you mean optimizer.lr?"),
    ("batch_size=8", "batch_size: no such key; did you mean task.batch_size?"),
    ("optimizer.lrr=1", "optimizer.lrr: no such key; did you mean lr?"),
    *((f"task.name={value}", f"task.name={value}: cannot be read: quote the value, for the shell too: \"task.name='")
      for value in ("a=b", "[a", "a#b", "~/a", "mÿ", "(a", "a b[")),
    ("nothing", "nothing: cannot be read"),
    ("experiment=paper/fig2 task=digits optimizer=sgd,nope", "optimizer=nope: no such choice"),  # a multirun
]  # fmt: skip


@pytest.mark.parametrize(("word", "says"), SAID)
def test_a_wrong_word_is_one_line_with_the_way_out(
    word: str, says: str, vrbench: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*(word.split() if "experiment" in word else [word]), *SHORT) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith(f"vrbench: {says}")
    assert not list(tmp_path.iterdir())


def test_the_quoted_form_that_is_shown_can_be_run(
    vrbench: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("task.name=a#'b", "--cfg", "job") == 2
    quoted = capfd.readouterr().err.strip().partition("too: ")[2].strip('"')
    assert vrbench(quoted, "--cfg", "job") == 0
    assert "name: a#'b" in capfd.readouterr().out


def test_overrides_may_stand_on_both_sides_of_an_option(
    vrbench: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("seed=0,1", "-m", *SHORT) == 0
    assert capfd.readouterr().out.startswith("2 runs: 2 to train")


def test_the_home_folder_is_where_results_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    assert command_line.read(["results_dir=~/runs", "-m", "seed=1"]) == [
        "-m",
        f"results_dir='{tmp_path / 'my home'}/runs'",
        "seed=1",
    ]


def test_help_names_every_other_command(vrbench: Callable[..., int], capfd: pytest.CaptureFixture[str]) -> None:
    assert vrbench("--help") == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Beside runs: ")]
    assert line.partition(",")[0] == f"Beside runs: vrbench {' | '.join(COMMANDS)}"


@pytest.mark.parametrize("command", [["vrbench"], ["vrbench", "report"]])
def test_the_version_is_ours(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import vrbench

    monkeypatch.setattr(sys, "argv", [*command, "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert capfd.readouterr().out.split()[-1] == vrbench.__version__
