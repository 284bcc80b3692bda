"""What a multirun shows while it runs: a line for each run, a live view on a terminal, a heartbeat elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_wandb import info
from rich.progress import BarColumn, ProgressBar
from screen import Terminal

from vrbench.app import progress
from vrbench.app.progress import Job, SweepView, cut, words_of
from vrbench.loggers import console
from vrbench.loggers.console import Console, Ticker, duration, outcome
from vrbench.runs.records import find_runs

Call = Callable[..., int]
SHORT = ("logger=console", "trainer.max_steps=20", "trainer.eval_every=10", "trainer.log_every=5", "trainer.threads=1")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def summary(step: int = 20, value: float = 0.5, **changes: Any) -> dict[str, Any]:
    best = {"step": 10, "metrics": {"val/accuracy": value, "val/loss": 1.0}}
    primary = {"metric": "val/accuracy", "direction": "max"}
    made = {
        "status": "finished",
        "steps": step,
        "best": best,
        "primary": primary,
        "seconds": {"train": 1.0, "eval": 0.2},
    }
    return {**made, "metrics": {"val/accuracy": 0.1, "test/accuracy": 0.4}, **changes}


def begin(folder: Path, step: int, total: int = 20) -> None:
    """A run's folder as it is after a step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"schema": 2, "status": "running", "total_steps": total}))
    (folder / "metrics.jsonl").write_text(json.dumps({"step": step}) + "\n")
    (folder / "config.yaml").write_text("task: {data: {val_size: null}}\ntrainer: {evaluate_test: true}\n")


def job(folder: Path, name: str = "a") -> Job:
    return Job(folder / name, f"digits · sgd lr={name} · seed 0", f"digits · sgd lr={name}")


def test_a_sweep_has_a_line_for_each_run_with_what_was_swept(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("-m", "optimizer=sgd", "optimizer.lr=0.01,0.1", "seed=0,1", *SHORT) == 0
    out = capfd.readouterr().out
    lines = out[: out.index("**study default")].splitlines()
    assert lines[0] == "4 runs: 4 to train"
    shown = r"/4  digits · sgd lr={lr} +· seed {seed} +accuracy 0\.\d+ best at step [12]0   \d+\.\d s"
    wanted = [(lr, seed) for lr in (0.01, 0.1) for seed in (0, 1)]
    for number, (line, (lr, seed)) in enumerate(zip(lines[1:], wanted, strict=True), 1):
        assert re.match(f"{number}{shown.format(lr=lr, seed=seed).replace(' +·', ' ·')}", line), line
        assert number == 3 or ("left" in line) == (number < 4), "the last one may have trained by then"
        assert len(line) <= progress.WIDTH
    assert not CONTROL.search(out)
    names = sorted(run.directory.name for run in find_runs(tmp_path))
    assert [re.sub(r"-[0-9a-f]{16}$", "", name) for name in names] == [
        f"digits-mlp-sgd-lr{lr}-max_steps20-eval_every10-s{seed}" for lr in ("0.01", "0.1") for seed in (0, 1)
    ]


def test_a_run_is_found_again_whatever_words_it_was_asked_for_with(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("optimizer=adamw", "optimizer.lr=1e-2", *SHORT) == 0
    capfd.readouterr()
    assert vrbench("optimizer=adamw", "optimizer.lr=0.01", *SHORT) == 0
    assert "already, skipped" in capfd.readouterr().out
    assert vrbench("-m", "optimizer=adamw", "optimizer.lr=0.01,0.02", *SHORT) == 0
    assert capfd.readouterr().out.startswith("2 runs: 1 to train, 1 over\n2/2  digits · adamw lr=0.02 · seed 0 ")
    assert len(find_runs(tmp_path)) == 2


def test_what_the_runs_that_are_over_are_not_is_said_once_for_all(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("-m", "optimizer=sgd", "seed=0,1", "trainer.evaluate_test=false", *SHORT) == 0
    capfd.readouterr()
    assert vrbench("-m", "optimizer=sgd", "seed=0,1,2", *SHORT) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == [
        "3 runs: 1 to train, 2 over",
        "  2 of them without reading the test split: force=true reads it",
    ]
    assert lines[2].startswith("3/3  digits · sgd · seed 2 ")


def test_runs_that_are_trained_again_have_lines_too(vrbench: Call, capfd: pytest.CaptureFixture[str]) -> None:
    assert vrbench("-m", "optimizer=sgd", "seed=0,1", *SHORT) == 0
    capfd.readouterr()
    assert vrbench("-m", "optimizer=sgd", "seed=0,1", "force=true", *SHORT) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "2 runs: 2 to train"
    assert [line[:4] for line in lines[1:3]] == ["1/2 ", "2/2 "]


def test_a_ticker_whose_reader_has_gone_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise BrokenPipeError

    ticker = Ticker(0.01, broken)
    ticker.start()
    time.sleep(0.2)
    ticker.stop()
    assert capsys.readouterr().err == ""


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize(("work", "least", "most"), [(busy, 1, 1), (time.sleep, 3, 20)])
def test_a_ticker_whose_call_costs_much_makes_it_less_often(
    work: Callable[[float], None], least: int, most: int
) -> None:
    calls = []

    def call() -> None:
        calls.append(time.monotonic())
        work(0.04)

    ticker = Ticker(0.01, call)
    ticker.start()
    time.sleep(0.9)
    ticker.stop()
    assert least <= len(calls) <= most  # 0.04 s of a core: the next is two seconds away; a call that waits costs none


def test_a_search_has_a_line_for_each_trial(vrbench: Call, capfd: pytest.CaptureFixture[str]) -> None:
    assert vrbench("-m", "sweep=tune", "optimizer=sgd,adamw", "hydra.sweeper.n_trials=2", *SHORT) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "searches: 2, with 4 runs, 0 of them over"
    ends = [line for line in lines if re.match(r"\d/4  ", line)]
    assert [line[:3] for line in ends] == ["1/4", "2/4", "3/4", "4/4"]
    assert all(re.search(r" digits · (sgd|adamw) lr=[\d.e-]{2,10} .*· seed \d", line) for line in ends), ends


def test_a_line_fits_in_120_columns_whatever_was_swept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = Job(tmp_path / "a", f"digits · sgd path={'x' * 200} · seed 7", "digits")
    with SweepView(1) as view:
        view.watch([long])
        begin(tmp_path / "a", 20)
        (tmp_path / "a/summary.json").write_text(json.dumps(summary()))
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) == progress.WIDTH
    assert line.startswith("1/1  digits · sgd path=")
    assert "seed 7   accuracy 0.5 best at step 10   1.2 s" in line
    assert cut("abcdefgh", 5) == "ab…gh"
    assert cut("abc", 3) == "abc"


def test_diverged_and_pruned_runs_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SweepView(2) as view:
        view.watch([job(tmp_path, "a"), job(tmp_path, "b")])
        for name in "ab":
            begin(tmp_path / name, 7)
        (tmp_path / "a/summary.json").write_text(json.dumps(summary(9, status="diverged")))
        (tmp_path / "b/manifest.json").write_text(json.dumps({"schema": 2, "status": "pruned", "total_steps": 20}))
    first, second = capsys.readouterr().out.splitlines()
    assert "diverged at step 9" in first
    assert "pruned at step 7" in second


def test_evaluation_that_took_over_half_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SweepView(3) as view:
        view.watch([job(tmp_path, name) for name in "abc"])
        for name, evaluation in (("a", 30.0), ("b", 30.0), ("c", 1.0)):
            begin(tmp_path / name, 20)
            seconds = {"train": 10.0, "eval": evaluation}
            (tmp_path / name / "summary.json").write_text(json.dumps(summary(seconds=seconds)))
    last = capsys.readouterr().out.splitlines()[-1]
    cheaper = "task.data.val_size=… or trainer.eval_every=… makes it cheaper"
    assert last == f"2 of 3 runs: evaluation took 75% of its time; {cheaper}"


def test_what_another_start_has_left_is_not_at_work(tmp_path: Path) -> None:
    """A folder of before counts from the moment that its manifest is written again."""
    begin(tmp_path / "a", 5)
    (tmp_path / "a/manifest.json").write_text(json.dumps({"schema": 2, "status": "pruned", "total_steps": 20}))
    before = job(tmp_path)
    assert before.place is None
    assert before.ended is None
    time.sleep(0.01)
    begin(tmp_path / "a", 15)
    assert before.place == (15, 20)


def test_the_heartbeat_says_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOOK_EVERY", 60.0)
    with SweepView(4, over=2) as view:
        view.watch([job(tmp_path, "a"), job(tmp_path, "b")])
        monkeypatch.setattr(progress, "HEARTBEAT", 0.0)
        begin(tmp_path / "a", 5)
        view.look()
        time.sleep(0.2)
        view.look()
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(r"2 of 4 over; digits · sgd lr=a · seed 0 at step 5 of 20; left \d\.\d s", first), first


def test_the_time_left_counts_runs_at_work_by_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "LOOK_EVERY", 60.0)
    view = SweepView(4)
    view.watch([job(tmp_path, name) for name in "abcd"])
    begin(tmp_path / "a", 0)
    view.look()
    begin(tmp_path / "a", 20)
    (tmp_path / "a/summary.json").write_text(json.dumps(summary()))
    begin(tmp_path / "b", 10)
    clock[0] = 130.0
    view.look()
    assert view._left() == "left 50 s"  # 1.5 runs in 30 s, 2.5 to go


def test_one_run_beats_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT", 0.05)
    shown = Console()
    shown.start(info(tmp_path), 100, [])
    shown.log({"step": 40, "train/loss": 1.0})
    time.sleep(0.3)
    shown.finish(summary())
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"digits · vradam lr=0\.01 · seed 0: step 40 of 100, [\d.]+ s, left [\d.]+ s", lines[-4]), lines
    assert lines[-3:-1] == ["digits · vradam lr=0.01 · seed 0", "  accuracy 0.5 best at step 10   1.2 s"]


def test_a_run_that_breaks_beats_no_more(vrbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from vrbench.training.trainer import Trainer

    def broken(self: Trainer) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Trainer, "_train_step", broken)
    before = threading.active_count()
    assert vrbench(*SHORT) == 1
    assert threading.active_count() == before


def test_a_console_that_fails_beats_no_more(vrbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_reads(self: Console, row: dict[str, float]) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Console, "log", nobody_reads)
    before = threading.active_count()
    assert vrbench(*SHORT) == 0
    assert threading.active_count() == before


def test_the_best_validation_is_shown_and_never_the_last() -> None:
    assert outcome(summary(value=0.97766)) == "accuracy 0.9777 best at step 10"
    assert outcome(summary(best={"step": None, "metrics": {}})) == "finished after 20 steps"


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Console()
    shown.start(replace(info(tmp_path / "br[ack]et/[/b]"), label="sgd hidden=[64,red]"), 10, [])
    shown.finish(summary())
    with SweepView(1) as view:
        view.watch([Job(tmp_path / "a", "digits · sgd hidden=[/b] :smile: · seed 0", "")])
        begin(tmp_path / "a", 20)
        (tmp_path / "a/summary.json").write_text(json.dumps(summary()))
    out = capsys.readouterr().out
    assert "sgd hidden=[64,red] · seed 0" in out
    assert "br[ack]et/[/b]\n" in out
    assert "sgd hidden=[/b] :smile: · seed 0" in out


def test_a_bar_pulses_while_no_step_ends() -> None:
    bars = console.run_bars(console.plain_console())
    bars.add_task("evaluates", total=10, shown="", moved=time.monotonic() - 60)
    bars.add_task("trains", total=10, shown="", moved=time.monotonic())
    (column,) = [column for column in bars.columns if isinstance(column, BarColumn)]
    drawn = [column.render(task) for task in bars.tasks]
    assert [isinstance(bar, ProgressBar) and bar.pulse for bar in drawn] == [True, False]


def test_words() -> None:
    given = ["optimizer.lr=0.0063312345", "+schedule.warmup=0.2", "seed=1", "model=mlp"]
    assert words_of(given, ["seed"]) == "lr=0.006331 schedule.warmup=0.2 model=mlp"
    assert [duration(s) for s in (1.23, 45, 200, 7800)] == ["1.2 s", "45 s", "3 min", "2 h 10 min"]


SWEEP = ("-m", "optimizer=sgd", "optimizer.lr=0.01,0.1", "seed=0,1", *SHORT[:1], *SHORT[3:], "trainer.max_steps=1500")


def terminal(tmp_path: Path, columns: int, *words: str, **env: str) -> Terminal:
    return Terminal([sys.executable, "-m", "vrbench", *words, f"results_dir={tmp_path}"], columns, env=env)


@pytest.mark.parametrize("columns", [80, *(pytest.param(c, marks=pytest.mark.slow) for c in (60, 120))])
def test_a_terminal_has_a_live_view_that_holds_at_any_width(columns: int, tmp_path: Path) -> None:
    shown = terminal(tmp_path, columns, *SWEEP)
    shown.read()
    live = [screen for screen in shown.screens if any(re.match("[23]/4 runs", line) for line in screen)]
    whole = [line.rstrip() for screen in live for line in screen if "/4 runs" in line]  # some are half drawn
    assert any(re.fullmatch(r"[23]/4 runs [━╸╺]+ left \S+ \S+", one) and len(one) == columns for one in whole), whole
    assert max(map(len, whole)) <= columns
    runs = [line.rstrip() for screen in live for line in screen if re.search(r"[━╸╺] +\d+/1500 ", line)]
    run = r"digits · sgd lr=0\.0?1 · seed [01] +[━╸╺]+ +\d+/1500 (\d\d:\d\d|--:--)$"  # it looks twice a second
    assert any(re.match(run, line) for line in runs), runs
    assert any(re.match(r"digits · sgd lr=0.01 +n 2 +accuracy 0\.\d+ ± ", line) for screen in live for line in screen)
    text = shown.text
    assert "runs ━" not in text
    assert text.startswith("4 runs: 4 to train\n1/4  digits · sgd lr=0.01 · seed 0")
    assert len(re.findall(r"accuracy 0\.\d+ best at step \d+   [\d.]+ s$", text, re.M)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"CI": "true"}])
def test_no_bar_is_drawn_where_none_can_be(env: dict[str, str], tmp_path: Path) -> None:
    shown = terminal(tmp_path, 80, *SWEEP, **env)
    shown.read()
    before, last, _ = shown.bytes.partition(b"\n4/4  digits")
    assert last
    assert b"\x1b" not in before


@pytest.mark.slow
def test_where_signs_cannot_be_encoded_words_stand_for_them(tmp_path: Path) -> None:
    words = ["-m", "optimizer=sgd", "seed=0,1", *SHORT, f"results_dir={tmp_path}"]
    around = {key: value for key, value in os.environ.items() if key not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    done = subprocess.run([sys.executable, "-m", "vrbench", *words], env={**around, "LC_ALL": "C"}, capture_output=True)
    said = done.stdout.decode("ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "2/2  digits * sgd * seed 1   accuracy 0." in said
    assert "accuracy (higher is better) 0." in said
    assert " +- " in said


@pytest.mark.slow
def test_no_colour_where_none_is_wanted(tmp_path: Path) -> None:
    shown = terminal(tmp_path, 80, *SWEEP, NO_COLOR="1")
    shown.read()
    codes = {code for group in re.findall(rb"\x1b\[([\d;]*)m", shown.bytes) for code in group.split(b";")}
    assert not [code for code in codes if code[:1] in (b"3", b"4", b"9") and len(code) == 2]


@pytest.mark.slow
def test_a_sweep_that_is_stopped_leaves_no_bar(tmp_path: Path) -> None:
    shown = terminal(tmp_path, 80, "-m", "seed=0,1,2", "logger=console", "trainer.epochs=100000", "trainer.log_every=5")
    shown.read(until=lambda screen: any(re.search(r" [1-9]\d*/\d+ ", line) and "seed 0" in line for line in screen))
    shown.child.send_signal(signal.SIGINT)
    last = [line.rstrip() for line in shown.read() if line.strip()]
    assert last[-1] == "stopped: 0 of 3 over, 1 saved, 2 to go; the same command goes on", last
    assert not any("━" in line for line in last)


@pytest.mark.slow
def test_a_single_run_has_a_bar_that_goes(tmp_path: Path) -> None:
    shown = terminal(tmp_path, 80, "seed=3", "trainer.fraction=0.2", *SHORT[:1], *SHORT[3:])
    shown.read()
    lines = [line.rstrip() for screen in shown.screens for line in screen]
    assert any(re.match(r"digits · vradam \S+ · seed? ?3?…? +[━╸╺]+ +\d+/\d+ ", line) for line in lines)
    assert "━" not in shown.text
    assert re.match(r"digits · vradam \S+ · seed 3\n  accuracy 0\.\d+ best at step \d+   [\d.]+ s\n  → ", shown.text)


@pytest.mark.slow
def test_36_runs_into_a_file_are_short(vrbench: Call, capfd: pytest.CaptureFixture[str]) -> None:
    """With a table of two tasks: that of the quickstart, of four, has six lines more."""
    few = ("task=digits,hypergrid", "seed=range(6)", "trainer.max_steps=4", "trainer.fraction=1", "logger=console")
    assert vrbench("experiment=quickstart", *few) == 0
    said = capfd.readouterr()
    lines = said.out.splitlines() + said.err.splitlines()
    assert lines[0] == "36 runs: 36 to train"
    assert sum(bool(re.match(r"[ \d]\d/36  .{,113}$", line)) for line in lines) == 36
    assert len(lines) <= 50, len(lines)
