"""One run over several processes: the losses of one process, equal weights and gates in all of them, one writer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import process_worker as worker
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from vrbench.tasks.question_answering import QuestionAnswering

from vrbench.contracts import Share
from vrbench.data.text import Pairs
from vrbench.data.tokenization import Char
from vrbench.runs.records import find_runs
from vrbench.training.distributed import Processes

RUN = ("logger=none", "trainer.max_steps=12", "trainer.eval_every=6", "trainer.log_every=1", "trainer.threads=1")

SPY = """
import json, os, signal, sys
from vrbench.app.main import main
from vrbench.training import distributed
def log(self, row):
    with open(os.environ["SPY"], "a") as file:
        file.write(json.dumps(row) + "\\n")
    if row["step"] == int(os.environ.get("STOP_AT", "0")):
        os.kill(os.getpid(), signal.SIGTERM)
distributed._Silent.log = log
main()
"""

FAILING = """
import os, signal
from vrbench.app.main import main
from vrbench.probes.optim import OptimProbe
before_step = OptimProbe.before_step
def spy(self, moment):
    before_step(self, moment)
    if moment.step == 7 and os.environ["RANK"] == os.environ["FAILS"]:
        if os.environ["HOW"] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("of its own")
OptimProbe.before_step = spy
main()
"""


def torchrun(tmp_path: Path, *overrides: str, stop_at: int = 0) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "spy.py"
    script.write_text(SPY)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--master-port={port}",
        str(script),
    ]
    spied = {"SPY": str(tmp_path / "spy.jsonl"), "STOP_AT": str(stop_at)}
    environment = {**os.environ, **spied, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    overrides = (f"results_dir={tmp_path}", *RUN, *overrides)
    return subprocess.run([*command, *overrides], cwd=tmp_path, env=environment, capture_output=True, text=True)


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.allclose(value.float(), theirs[key].float(), rtol=1e-5, atol=1e-6) for key, value in ours.items()
    )


# ---- shares of batches ----------------------------------------------------------------------------------------------


def test_shares_are_even_or_refused() -> None:
    batch = (torch.arange(6), {"x": torch.arange(12).view(6, 2)})
    first, second = (Processes(rank, 2).part(batch) for rank in (0, 1))
    assert torch.equal(torch.cat([first[0], second[0]]), batch[0])
    assert torch.equal(torch.cat([first[1]["x"], second[1]["x"]]), batch[1]["x"])
    assert [Processes(rank, 2).stream(5) for rank in (0, 1)] == [10, 11]
    assert Processes().part(batch[0]) is batch[0]
    assert Processes().stream(5) == 5
    with pytest.raises(ValueError, match="batch_size=6: cannot be shared evenly by 4 processes"):
        Processes(0, 4).part(batch)
    with pytest.raises(ValueError, match="batch_size=1: cannot be shared evenly by 2 processes"):
        Processes(0, 2).part(torch.tensor(3))
    with pytest.raises(ValueError, match="a batch of str"):
        Processes(0, 2).part("abc")


READING = {
    "digits": ("task.crop_padding=2", "task.flip=true"),
    "diffusion_digits": ("task.flip=true",),
    "pydoc": ("task.windows=contiguous",),
    "text": (),
    "question_answering": (),
}


def reading(name: str) -> Any:
    if name == "question_answering":
        pairs = [(f"{number}+1=", str(number + 1)) for number in range(90)]
        return QuestionAnswering("q", 8, 8, 16, False, Pairs(pairs, pairs[:2], pairs[2:4]), Char())
    name, changes = ("pydoc", ("task.windows=random",)) if name == "text" else (name, READING[name])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return instantiate(compose("config", [f"task={name}", *changes]).task)


@pytest.mark.parametrize("name", READING)
def test_a_process_makes_the_rows_of_its_share_alone(name: str) -> None:
    """They are those of the whole batch, augmentation included."""
    task = reading(name)

    def batches(share: Share) -> list[Any]:
        order, augment = torch.Generator().manual_seed(1), torch.Generator()
        made = iter(task.train_batches(order, augment, 1, share=share))
        found = []
        for number in range(2):
            augment.manual_seed(number)
            found.append(next(made))
        return found

    for whole, *parts in zip(*(batches(share) for share in (Share(0, 1), Share(0, 2), Share(1, 2))), strict=True):
        columns = zip(*((part,) if isinstance(part, Tensor) else part for part in (whole, *parts)), strict=True)
        for all_rows, first, second in columns:
            assert len(first) == len(second) == len(all_rows) / 2
            assert torch.equal(torch.cat([first, second]), all_rows)
    with pytest.raises(ValueError, match="cannot be shared evenly by 7 processes"):
        batches(Share(0, 7))


# ---- gradients ------------------------------------------------------------------------------------------------------


RESUMED = ("vradam", "norm", "summed", "schedulefree", "averaged", "sam")
SHARDED = ("vradam", "momentumless", "muon", "schedulefree", "clipped")


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process does."""
    with pytest.warns(UserWarning, match="gradients add up"):
        return {
            "kinds": worker.kinds(Processes(), worker.KINDS),
            "double": worker.doubled(Processes()),
            "broken": worker.broken(Processes(), SHARDED),
        }


@pytest.fixture(scope="module")
def pair(alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes does; they are started once."""
    folder = tmp_path_factory.mktemp("pair")
    torch.save({kind: alone["broken"][kind]["first"]["state"] for kind in SHARDED}, folder / "left.pt")
    return worker.both(folder, ",".join(RESUMED), ",".join(SHARDED))


@pytest.mark.slow
@pytest.mark.parametrize("kind", worker.KINDS)
def test_two_processes_take_the_steps_of_one(kind: str, alone: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    one, first, second = (run["kinds"][kind] for run in (alone, *pair))
    assert len(first["rows"]) == len(one["rows"]) == (6 if kind == "accumulated" else 18)
    assert first["rows"] == second["rows"], "losses, validations, norms and gates are equal in both, bit for bit"
    assert same(first["weights"], second["weights"])
    assert same(first["best_weights"], second["best_weights"])
    assert first["metrics"] == second["metrics"]
    assert one["gradients"] == first["gradients"], "a parameter without a gradient has none in several processes too"
    if kind in ("norm", "bfloat16"):  # statistics of a share; products rounded to eight bits
        return
    assert close(first["weights"], one["weights"])
    for row, other in zip(alone["double"][kind]["rows"], pair[0]["double"][kind]["rows"], strict=True):
        assert abs(other["train/loss"] - row["train/loss"]) <= 1e-12
        for key in ("val/loss", "optim/grad_norm", "optim/update_norm", "optim/gate"):
            if key in row:
                assert other[key] == pytest.approx(row[key], rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_a_task_that_can_make_its_share_alone_does(alone: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    one, first, second = (run["kinds"]["reading"]["seen"] for run in (alone, *pair))
    assert [[*own, *other] for own, other in zip(first, second, strict=True)] == one
    assert pair[1]["kinds"]["plain"]["seen"] == alone["kinds"]["plain"]["seen"], "others are made whole"


@pytest.mark.slow
def test_a_parameter_that_some_batches_do_not_reach_is_refused(pair: list[dict[str, Any]]) -> None:
    expected = (
        "2: model: 2 parameters, 2.weight the first, got no gradient from a batch and did from others: "
        "several processes can train it where each batch reaches the same parameters"
    )
    assert [found["uneven"] for found in pair] == [expected] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:trainer.zero_grad=false")
@pytest.mark.parametrize("kind", RESUMED)
def test_a_run_of_two_processes_goes_on_as_if_unbroken(
    kind: str, alone: dict[str, Any], pair: list[dict[str, Any]]
) -> None:
    for found in pair:
        whole, parts = found["kinds"][kind], found["broken"][kind]
        assert parts["first"]["rows"] + parts["rest"]["rows"] == whole["rows"]
        assert same(parts["rest"]["weights"], whole["weights"])
        assert parts["rest"]["metrics"] == whole["metrics"]
    if kind != "norm":
        rest = worker.trained(worker.trainer(Processes(), kind), pair[0]["broken"][kind]["first"]["state"])
        assert close(rest["weights"], alone["kinds"][kind]["weights"]), "one process goes on with it as well"


# ---- shared out -----------------------------------------------------------------------------------------------------


def form(value: Any) -> Any:
    """Types, shapes and keys of a state, without its numbers."""
    if isinstance(value, Tensor):
        return type(value), value.dtype, value.shape, value.device
    if isinstance(value, dict):
        return [(key, form(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [form(item) for item in value]
    return type(value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARDED)
def test_a_sharded_run_goes_on_in_any_number_of_processes(
    kind: str, alone: dict[str, Any], pair: list[dict[str, Any]]
) -> None:
    """Its checkpoint is one of a single process; a validation comes right before it, and leaves nothing gathered."""
    one, (first, second) = alone["broken"][kind], (found["sharded"][kind] for found in pair)
    for part in ("whole", "first", "rest", "of_one"):
        assert first[part]["rows"] == second[part]["rows"]
        assert same(first[part]["weights"], second[part]["weights"])
    assert first["first"]["rows"] + first["rest"]["rows"] == first["whole"]["rows"]
    assert same(first["rest"]["weights"], first["whole"]["weights"])
    assert form(first["first"]["state"]) == form(one["first"]["state"])
    rest = worker.trained(worker.trainer(Processes(), kind), first["first"]["state"])
    for found in (first["whole"], first["of_one"], rest):
        assert close(found["weights"], one["rest"]["weights"])
    assert first["rest"]["metrics"] == second["rest"]["metrics"]
    assert first["rest"]["metrics"] == pytest.approx(one["rest"]["metrics"], rel=1e-5)


@pytest.mark.slow
def test_what_cannot_be_shared_out_is_refused_by_name(pair: list[dict[str, Any]]) -> None:
    first, second = (found["unshareable"] for found in pair)
    assert first == second
    assert first["in_parts"].startswith("parallel=fsdp: needs a task that calls its model as a whole (")
    assert first["varying"] == (
        "task: calls its model more often in one process than in another, which trainer.parallel=fsdp cannot follow; "
        "take trainer.parallel=ddp"
    )


# ---- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute on two free cores
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one(parallel: str, vrbench: Callable[..., int], tmp_path: Path) -> None:
    """The sharded run is stopped in the middle by a signal to one process, and goes on from its checkpoint."""
    assert vrbench(*RUN, "study=one") == 0
    overrides = ("study=two", f"trainer.parallel={parallel}")
    if parallel == "fsdp":
        assert torchrun(tmp_path, *overrides, stop_at=7).returncode != 0
        (stopped,) = find_runs(tmp_path / "two")
        assert [row["step"] for row in stopped.rows()] == list(range(1, 8))
    result = torchrun(tmp_path, *overrides)
    assert result.returncode == 0, result.stderr
    (one,), (two,) = find_runs(tmp_path / "one"), find_runs(tmp_path / "two")
    assert one.directory.name == two.directory.name  # the same run, however many processes
    assert two.manifest["resumed_from_step"] == (7 if parallel == "fsdp" else None)
    rows, other_rows = list(one.rows()), list(two.rows())
    assert len(rows) == len(other_rows) == 12
    for row, other in zip(rows, other_rows, strict=True):
        for key in ("train/loss", "train/accuracy", "val/loss", "optim/gate", "optim/grad_norm", "optim/update_norm"):
            if key in row:
                assert other[key] == pytest.approx(row[key], rel=1e-5, abs=1e-6)
        assert abs(other["train/loss"] - row["train/loss"]) <= 1e-6
    spied = [json.loads(line) for line in (tmp_path / "spy.jsonl").read_text().splitlines()]
    keys = ("step", "optim/gate", "optim/velocity_sq", "train/loss")
    assert [[row[key] for key in keys] for row in spied] == [[row[key] for key in keys] for row in other_rows]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("fails", "how"),
    [
        ("1", "killed"),
        pytest.param("0", "killed", marks=pytest.mark.slow),
        pytest.param("1", "raises", marks=pytest.mark.slow),
    ],
)
def test_a_process_whose_other_has_ended_says_so_and_ends_within_a_minute(
    fails: str, how: str, vrbench: Callable[..., int], tmp_path: Path
) -> None:
    """With nobody to end it: torchrun is not there. One process then goes on with what the two have left."""
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    overrides = (*RUN, "trainer.checkpoint_seconds=0", f"results_dir={tmp_path}")
    processes = worker.start(2, [str(script), *overrides], FAILS=fails, HOW=how)
    processes[int(fails)].wait()
    ended = time.monotonic()
    output, _ = processes[1 - int(fails)].communicate(timeout=60)
    assert time.monotonic() - ended < 60
    lines = [line for line in output.splitlines() if line.startswith("vrbench: ")]
    assert len(lines) == 1, output
    assert f"process {1 - int(fails)} of 2 ends, because another one has ended before its time" in lines[0]
    assert lines[0].endswith("the same command goes on from the last checkpoint")
    assert "Traceback" not in output
    assert processes[1 - int(fails)].returncode == 1
    if how == "raises":
        said, _ = processes[1].communicate()
        assert "RuntimeError: of its own" in said
        assert "the run broke (traceback above)" in said
    (run,) = find_runs(tmp_path / "default")
    steps = [row["step"] for row in run.rows()]  # process 0 may have taken step 7 with the gradients that it got
    assert steps in (list(range(1, 7)), list(range(1, 8)))
    assert vrbench(*RUN) == 0
    (run,) = find_runs(tmp_path / "default")
    assert run.manifest["resumed_from_step"] == 6
    assert [row["step"] for row in run.rows()] == list(range(1, 13))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.compile=false", "trainer.parallel=fsdp: needs several processes (torchrun"),
        ("trainer.ema_decay=0.9", "parallel=fsdp goes with compile=false, ema_decay=null and zero_grad=true"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    override: str, says: str, vrbench: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*RUN, "trainer.parallel=fsdp", override) == 2
    assert says in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("task.batch_size=63",), "task: a batch of 63 images cannot be shared evenly by 2 processes"),
        (("task=pydoc", "task.batch_size=7"), "task.batch_size=7: cannot be shared evenly by 2 processes"),
    ],
)
def test_what_two_processes_cannot_train_is_refused_at_once(
    overrides: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    result = torchrun(tmp_path, *overrides)
    assert result.returncode != 0
    assert says in result.stderr
    assert not (tmp_path / "default").exists()
