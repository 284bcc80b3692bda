"""Hostile files and secrets: each test shows that the payload did not run or leak."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK

from vrbench.app import targets
from vrbench.runs import checkpoint
from vrbench.runs.records import find_runs, write_whole
from vrbench.runs.redact import hide, hide_all

Call = Callable[..., int]
Capture = pytest.CaptureFixture[str]


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What a payload would leave behind."""
    return tmp_path / "the-payload-ran"


def test_the_payload_of_these_tests_works(mark: Path) -> None:
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_hostile_checkpoint_is_not_run(writer: str, tmp_path: Path, mark: Path) -> None:
    """With a right checksum, as one who can write the folder can make it."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    state = {"step": 1, "model": Payload(mark)}
    if writer == "torch":
        checkpoint.save(folder, state)
    else:

        def raw(file: Any) -> None:
            hashed = checkpoint._Hashed(file)
            hashed.write(pickle.dumps(state))
            file.write(checkpoint._MARK + hashed.hash.digest())

        write_whole(folder / checkpoint.FILE, raw)
    found, wrong = checkpoint.load(folder, lambda state: None)
    assert found is None
    assert "not tensors and plain values" in wrong[checkpoint.FILE]
    assert not mark.exists()


def test_a_run_with_a_hostile_checkpoint_starts_again(
    vrbench: Call, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    from vrbench.training.trainer import Trainer

    fit = Trainer.fit
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", lambda self, writer, *_: fit(self, writer, lambda: self.step >= 5))
        assert vrbench(*QUICK) == 0
    (run,) = find_runs(tmp_path)
    checkpoint.save(run.directory / "checkpoint", {"step": 1, "model": Payload(mark), "metrics": {"length": 0}})
    (run.directory / "checkpoint" / checkpoint.BEFORE).unlink()
    capfd.readouterr()
    assert vrbench(*QUICK) == 0
    assert "starts again at step 0" in capfd.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "posix.system", "builtins.eval", "subprocess.run", "shutil.rmtree", "functools.partial",
        "torch.os.system", "vrbench.runs.records.subprocess.run", "torch.load", "torch.hub.load", "numpy.load",
        "hydra.utils.call", "hydra.utils.instantiate", "yaml.unsafe_load", "runpy.run_path",
    ],
)  # fmt: skip
def test_a_target_that_runs_code_is_refused_by_any_name(target: str) -> None:
    with pytest.raises(ValueError, match=rf"^model\.inner\.0\._target_={target}: "):
        targets.check({"model": {"inner": [{"_target_": target}]}})


@pytest.mark.parametrize("target", ["torch.optim.SGD", "vrbench.models.mlp.MLP", "hydra.utils.get_class", "no.such"])
def test_other_targets_are_left_alone(target: str) -> None:
    targets.check({"model": {"_target_": target}})


HOSTILE = {
    "target": "# @package _global_\nmodel:\n  _target_: os.mkdir\n  path: {mark}\n",
    "nested target": "# @package _global_\ntask:\n  data:\n    _target_: torch.os.mkdir\n    path: {mark}\n",
    "python tag": "# @package _global_\nstudy: !!python/object/apply:os.mkdir ['{mark}']\n",
    "python name": "# @package _global_\nstudy: !!python/name:os.system\n",
    "callback": "# @package _global_\nhydra:\n  callbacks:\n    x: {{_target_: os.system, command: mkdir {mark}}}\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_yaml_is_refused_and_not_run(
    name: str, vrbench: Call, tmp_path: Path, mark: Path, capfd: Capture
) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "bad.yaml").write_text(HOSTILE[name].format(mark=mark))
    assert vrbench(f"--config-dir={tmp_path / 'conf'}", "experiment=bad", *QUICK) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("vrbench: ")
    assert not mark.exists()
    assert not (tmp_path / "default").exists()


@pytest.mark.parametrize("study", ["../out", "a/../../out", "/etc/out", ".hidden", "a//b", "a\nb", "a/", ""])
def test_a_study_cannot_leave_the_results_folder(study: str, vrbench: Call, tmp_path: Path, capfd: Capture) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from vrbench.tuning.confirmation import literal

    (override,) = OverridesParser.create().parse_overrides([f"study={literal(study)}"])
    assert override.value() == study
    assert vrbench(f"study={literal(study)}", *QUICK) == 2
    assert "study" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_task_from_elsewhere_makes_no_path_of_its_name(vrbench: Call, tmp_path: Path) -> None:
    assert vrbench("task=../task/digits", "task.name=../../out", *QUICK) in (0, 2)
    assert list(tmp_path.parent.glob("out*")) == []
    assert all(run.directory.parent == tmp_path / "default" for run in find_runs(tmp_path))


def test_secrets_stay_out_of_records_and_messages(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    secrets = {"WANDB_API_KEY": "0123456789abcdef01234567", "HF_TOKEN": "hf_abcdefghijklmnop"}
    for name, secret in secrets.items():
        monkeypatch.setenv(name, secret)
    callback = "+hydra.job.env_set.MY_TOKEN=given-on-the-command-line"
    assert vrbench(*QUICK, callback, "task.name=x-${oc.env:HF_TOKEN}", "logger=default") == 0
    assert vrbench(*QUICK, "optimizer.lr=${oc.env:WANDB_API_KEY}") == 2
    assert vrbench(*QUICK, "+token=given-on-the-command-line") == 2
    said = capfd.readouterr()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"***" in written
    for secret in (*secrets.values(), "given-on-the-command-line"):
        assert secret.encode() not in written
        assert secret not in said.out + said.err
    (run,) = find_runs(tmp_path)
    assert run.status == "finished"


def test_what_is_hidden_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "correct-horse")
    monkeypatch.setenv("SHORT_KEY", "digits")
    assert hide("+x.api_key=abc def") == "+x.api_key=***"
    assert hide("task.token=abc: no such key") == "task.token=***: no such key"
    assert hide("say correct-horse") == "say ***"
    for harmless in ("task/tokenizer=bpe", "task=digits", "optimizer.lr=1e-3", "monkey=1"):
        assert hide(harmless) == harmless
    assert hide_all({"a": ["correct-horse", 1], "token": "x", "n": {"secret": "y", "lr": 0.1}}) == {
        "a": ["***", 1],
        "token": "***",
        "n": {"secret": "***", "lr": 0.1},
    }


def test_a_tensor_payload_of_another_class_is_refused(tmp_path: Path) -> None:
    """torch.nn modules and the like are no plain values either."""
    checkpoint.save(tmp_path, {"model": torch.nn.Linear(2, 2)})
    state, wrong = checkpoint.load(tmp_path, lambda state: None)
    assert state is None
    assert list(wrong) == [checkpoint.FILE]
