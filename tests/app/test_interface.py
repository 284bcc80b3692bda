"""`vrbench.run`, `sweep`, `load`, `compare`, `check` from Python: the command line's work and its numbers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

import vrbench
from vrbench.app.jobs import RunFailed

Call = Callable[..., int]
SHORT = ("task=digits", "logger=none", "trainer.max_steps=20", "trainer.eval_every=10", "trainer.threads=1")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [*SHORT, f"results_dir={tmp_path}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> vrbench.Runs:
    """Two optimizers, eight seeds each."""
    where = f"results_dir={tmp_path_factory.mktemp('sweep')}"
    return vrbench.sweep([*SHORT, where, "optimizer=vradam,adamw", "seed=range(8)"])


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pandas", "hydra", "matplotlib", "yaml", "pydantic")
    timed = "import time; began = time.perf_counter(); import vrbench; print(time.perf_counter() - began)"
    code = f"{timed}; import sys; dir(vrbench); assert not set({heavy}) & set(sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert float(said) < 0.1


def test_everything_that_is_named_is_there() -> None:
    assert all(getattr(vrbench, name).__doc__ for name in vrbench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vrbench.nothing


def test_a_run_is_the_command_lines(words: list[str], vrbench_: Call, tmp_path: Path) -> None:
    run = vrbench.run([*words, "optimizer=adamw"])
    assert run.status == "finished"
    before = (run.directory / "summary.json").stat().st_mtime_ns
    assert vrbench_("optimizer=adamw", *SHORT) == 0
    assert vrbench.run([*words, "optimizer=adamw"]) == run
    assert (run.directory / "summary.json").stat().st_mtime_ns == before  # it is the same run, and it is over
    assert len(list(tmp_path.glob("default/*"))) == 1


@pytest.fixture
def vrbench_(request: pytest.FixtureRequest) -> Call:
    """The command line, of which the module's name is taken here."""
    call: Call = request.getfixturevalue("vrbench")
    return call


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("optimizer=nope", "optimizer=nope: no such choice; "),
        ("optimizer.lr=-1", r"optimizer\.lr=-1(\.0)?: must be a finite number, 0 or more"),
        ("lr=1", "lr: no such key; did you mean optimizer.lr?"),
        ("seed=0,1", r"seed=0,1: several values are a multirun: .*vrbench\.sweep"),
        ("experiment=quickstart", r"is a multirun: call vrbench\.sweep"),
        ("trainer.device=abacus", r"trainer\.device=abacus: "),
    ],
)
def test_a_wrong_word_is_a_value_error_of_one_line(word: str, says: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        vrbench.run([*words, word])
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_sweep_says_which_runs_broke(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunFailed, match="exit code 2"):
        vrbench.sweep([*words, "optimizer=sgd", "model.hidden=[4],[0]"])
    assert "1 of 2 broke" in capsys.readouterr().err
    with pytest.raises(ValueError, match="optimizer=nope: no such choice"):
        vrbench.sweep([*words, "optimizer=sgd,nope"])


def test_runs_as_data_frames(runs: vrbench.Runs) -> None:
    assert (len(runs), len(runs.arms), repr(runs)) == (16, 2, "<Runs: 16 of 2 arms>")
    frame = runs.runs()
    assert frame.shape[0] == 16
    assert set(frame["optimizer"]) == {"vradam", "adamw"}
    summaries = {run.directory.name: run.summary for run in runs}
    assert sorted(frame["test/accuracy"]) == sorted(s["metrics"]["test/accuracy"] for s in summaries.values() if s)
    rows = runs.metrics()
    one = rows[rows["run"] == next(iter(runs)).directory.name]
    assert one.set_index("step")["train/loss"].to_dict() == {
        r["step"]: r["train/loss"] for r in next(iter(runs)).rows()
    }
    assert list(runs.metrics("val/accuracy").columns[-2:]) == ["step", "val/accuracy"]
    assert not runs.metrics("val/accuracy")["val/accuracy"].isna().any()
    with pytest.raises(KeyError, match="val/nothing: no run has logged it; there are "):
        runs.metrics("val/nothing")
    means = frame.groupby("optimizer")["test/accuracy"].mean()
    assert runs.summary().set_index("optimizer")["mean"].to_dict() == pytest.approx(means.to_dict())
    assert "verdict" in runs.summary(baseline="adamw")


def test_a_comparison_is_that_of_the_command_line(runs: vrbench.Runs, capsys: pytest.CaptureFixture[str]) -> None:
    from vrbench.report.main import main

    found = vrbench.compare(runs, "vradam", "adamw", test="fixed")
    folder = next(iter(runs)).directory.parent
    assert vrbench.compare(folder, "vradam", "adamw", test="fixed").frame().equals(found.frame())
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(["compare", "vradam", "adamw", str(folder), "--test", "fixed", "--format", "markdown"])
    assert done.value.code == 0
    assert capsys.readouterr().out == str(found)
    assert len(found) == 1
    assert found["digits"].verdict is next(iter(found)).verdict
    with pytest.raises(KeyError, match="mnist: 0 comparisons; there are digits mlp"):
        _ = found["mnist"]


def test_figures_are_matplotlibs_axes(runs: vrbench.Runs) -> None:
    axes = runs.plot("curves")
    assert [one.get_ylabel() for one in axes] == ["training loss", "validation loss", "validation accuracy ↑"]
    assert [one.get_ylabel() for one in runs.plot("curves", metric="loss")] == ["training loss ↓", "validation loss ↓"]
    with pytest.raises(ValueError, match="nothing: no such figure; there are forest"):
        runs.plot("nothing")
    with pytest.raises(ValueError, match="no figure eos"):
        runs.plot("eos")


def test_load_reads_what_is_there(runs: vrbench.Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = next(iter(runs)).directory.parent
    assert len(vrbench.load(study)) == len(vrbench.load(study.parent)) == 16
    assert len(vrbench.load(next(iter(runs)).directory)) == 1
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        vrbench.load()
    (tmp_path / "results/runs").mkdir(parents=True)
    with pytest.raises(ValueError, match="results/runs: no run that is over"):
        vrbench.load()


def test_a_search_and_its_confirmation(words: list[str], tmp_path: Path) -> None:
    trials = vrbench.sweep([*words, "optimizer=sgd", "sweep=tune", "hydra.sweeper.n_trials=2", "study=s"])
    assert len(trials) == 2
    confirmed = vrbench.sweep(["experiment=confirm", "study=s", "seed=2000,2001", "logger=none", words[-1]])
    assert sorted(confirmed.runs()["seed"]) == [2000, 2001]


def test_a_part_against_its_contract() -> None:
    results = vrbench.check("schedule=cosine")
    assert results
    assert [result for result in results if result.is_wrong] == []
    with pytest.raises(ValueError, match="nothing=mine: name a part: optimizer=…"):
        vrbench.check("nothing=mine")
    with pytest.raises(ValueError, match="schedule=mine: no such choice"):
        vrbench.check("schedule=mine")


def test_an_interrupted_run_goes_on(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from vrbench.training.trainer import Trainer

    step = Trainer._train_step

    def interrupted(self: Trainer) -> dict[str, float]:
        if self.step == 10:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vrbench.run([*words, "optimizer=sgd"])
    monkeypatch.undo()
    assert vrbench.run([*words, "optimizer=sgd"]).status == "finished"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Cell by cell in a kernel of its own; bars are widgets."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    book = nbformat.read(ROOT / "docs/examples/first_study.ipynb", 4)
    assert not [cell for cell in book.cells if cell.get("outputs")]
    kernel = tmp_path / "kernels/here"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "here", "language": "python"}))
    specs = nbclient.client.KernelManager(kernel_name="here")
    specs.kernel_spec_manager.kernel_dirs.insert(0, str(kernel.parent))
    (tmp_path / "work").mkdir()
    client = nbclient.NotebookClient(book, timeout=120, km=specs, resources={"metadata": {"path": tmp_path / "work"}})
    client.execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    shown = [kind for output in outputs for kind in output.get("data", {})]
    assert {"text/html", "text/markdown", "image/png", "application/vnd.jupyter.widget-view+json"} <= set(shown)
    texts = [output.get("text", "") + str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert any("16/16  digits · " in text for text in texts), texts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "library", "says"),
    [
        ("plain_pytorch", "torch", "accuracy 1.000"),
        ("hugging_face", "accelerate", "at the end 0.0"),
        ("lightning_module", "lightning", "accuracy 1.000"),
    ],
)
def test_an_example_of_the_docs_runs(example: str, library: str, says: str) -> None:
    pytest.importorskip(library)
    path = ROOT / f"docs/examples/{example}.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
