"""Between logged steps nothing waits for the device: a whole training step of every task and model of conf/.

Once with numbers, on tensors of the CPU that stand for a device's; once without, on fake CUDA tensors. A step inside an
epoch is looked at: where one begins, the order of its examples is sent to the device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, fake_cuda, moved
from torch import Tensor
from unlogged import trainer_of
from vrbench.optimizers import VRAdam
from waits import Waits

from vrbench.app.check import Kit
from vrbench.checks.contract import Absent
from vrbench.checks.tasks import TaskPart

CPU = torch.device("cpu")

PACKED = "_local_scalar_dense in vrbench/models/pretrained.py:forward"
WALKS = {
    "nonzero in vrbench/environments/gridworld.py:policy_walks",
    "nonzero in tasks/gridworld.py:flow_errors",
    "index by a mask in tasks/gridworld.py:flow_errors",
    "index by a mask in tasks/gridworld.py:visited",
    "index by a mask in tasks/gridworld.py:_loss_on",
    "index_put by a mask in vrbench/training/trainer.py:_backward",
    "blocking copy to the device in tasks/gridworld.py:_loss_on",
}
READ: dict[str, set[str]] = {"task=gridworld": WALKS, "task=question_answering": {PACKED}, "model=pretrained": {PACKED}}
"""What waits, and cannot but do so: the tasks' and the model's docstrings say why."""

MIXED = [
    (("task=hypergrid", "task.loss=detailed_balance"), set()),
    (("task=hypergrid", "task.loss=sub_trajectory_balance"), set()),
    (
        ("task=hypergrid", "task.loss=flow_matching"),
        {f"{name} in vrbench/objectives/balance.py:flow_matching" for name in ("_unique2", "index by a mask")},
    ),
    (
        ("task=hypergrid", "task.height=32"),
        {f"{name} in tasks/hypergrid.py:_walk_by_model" for name in ("_local_scalar_dense", "_unique2")}
        | {f"{name} in tasks/hypergrid.py:_needed" for name in ("_unique2", "index by a mask")}
        | {"index by a mask in tasks/hypergrid.py:_walk_by_model"},
    ),
    (
        ("task=gridworld", "task.mask_invalid=true"),
        WALKS | {"blocking copy to the device in vrbench/environments/gridworld.py:allowed"},
    ),
    (("task=digits", "task.criterion=squared_error"), set()),
]
"""Settings of a task that take another way through its loss."""

CONF = Path(__file__).parents[2] / "conf"
TASKS = [f"task={path.stem}" for path in sorted((CONF / "task").glob("*.yaml"))]
MODELS = [f"model={path.stem}" for path in sorted((CONF / "model").glob("*.yaml"))]
HEAVY = ("task=imagefolder", "model=resnet18")


def slow(choices: list[str]) -> list[Any]:
    return [pytest.param(one, marks=[pytest.mark.slow] * (one in HEAVY)) for one in choices]


def part_of(choice: str, kit: Kit) -> TaskPart:
    """The task, or for a model the first task that it does for."""
    group, _, name = choice.partition("=")
    if group == "task":
        return kit.part(group, name)
    model = kit.part(group, name)
    task = model.task
    return TaskPart(lambda: task, type(task), {}, model.make, None)


def waits_of(part: TaskPart, **changes: Any) -> set[str]:
    """What waits in the second step on tensors of the CPU that stand for a device's."""
    waits = Waits()
    with waits:
        trainer = trainer_of(part, VRAdam, CPU, **changes)
        trainer._train_step()
        waits.found.clear()
        assert trainer._train_step() == {}
        assert all(waits.holds(p) and waits.holds(p.grad) for p in trainer.model.parameters() if p.grad is not None)
    return waits.found


@pytest.mark.parametrize("choice", slow([*TASKS, *MODELS]))
def test_no_step_waits(choice: str, kit: Kit) -> None:
    try:
        part = part_of(choice, kit)
        found = waits_of(part)
    except Absent as absent:
        pytest.skip(f"absent: {absent}")
    wanted = READ.get(choice, WALKS if choice == "model=gridworld_conv" else set())
    assert found == wanted or (found == set() and wanted == {PACKED}), "an older transformers does not look"


@pytest.mark.parametrize(("overrides", "wanted"), MIXED, ids=[" ".join(overrides) for overrides, _ in MIXED])
def test_other_ways_through_a_loss(overrides: tuple[str, ...], wanted: set[str], kit: Kit) -> None:
    assert waits_of(kit.task_part(*overrides)) == wanted


def test_no_option_of_the_trainer_waits(kit: Kit) -> None:
    options = {"accumulate": 2, "clip_norm": 1.0, "ema_decay": 0.9, "precision": "bfloat16", "channels_last": True}
    assert waits_of(kit.task_part("task=mnist"), **options) == set()


@pytest.mark.parametrize("choice", slow([one for one in TASKS if one != "task=gridworld"]))  # its sizes are numbers
def test_no_step_waits_nor_mixes_devices(choice: str, kit: Kit) -> None:
    """The same on fake CUDA tensors; of question answering's model, transformers reads no fake number."""
    try:
        part = part_of(choice, kit)
        task, waits = part.make(), Waits()
    except Absent as absent:
        pytest.skip(f"absent: {absent}")
    model = part.model(task)
    ready = TaskPart(lambda: task, part.target, part.settings, lambda shape, outputs: model, None)
    with fake_cuda():
        trainer = trainer_of(ready, VRAdam, CUDA, lambda model, device: moved(model))
        trainer._train_step()
        with waits:
            assert trainer._train_step() == {}
        state = [value for one in trainer.optimizer.state.values() for value in one.values()]
        assert {value.device for value in (*trainer.model.parameters(), *state)} == {CUDA}
    assert waits.found == set()


# ---- what is looked for is found ------------------------------------------------------------------------------------


def on_device(*shape: int) -> Tensor:
    return torch.ones(shape, device=CPU)


@pytest.mark.parametrize(
    ("waiting", "name"),
    [
        (lambda: on_device(2).sum().item(), "_local_scalar_dense"),
        (lambda: bool((on_device(2) > 0).all()), "_local_scalar_dense"),
        (lambda: torch.equal(on_device(2), torch.zeros(2)), "equal"),
        (lambda: (2 * on_device(2)).cpu(), "cpu"),
        (lambda: on_device(2).tolist(), "tolist"),
        (lambda: on_device(2).numpy(), "numpy"),
        (lambda: on_device(2)[on_device(2) > 0], "index by a mask"),
        (lambda: on_device(2).nonzero(), "nonzero"),
        (lambda: torch.unique(on_device(2)), "_unique2"),
        (lambda: torch.zeros(2).to(CPU), "blocking copy to the device"),
        (lambda: torch.tensor(1.0, device=CPU), "blocking copy to the device"),
        (lambda: torch.linalg.eigh(on_device(2, 2)), "_linalg_eigh"),
    ],
)
def test_it_is_noted(waiting: Any, name: str) -> None:
    with Waits() as waits:
        waiting()
    assert waits.found == {f"{name} in a library"}
    with pytest.raises(AssertionError, match=f"{name} waits"), Waits(strict=True):
        waiting()


def test_what_stays_on_the_host_may_be_read() -> None:
    with Waits() as waits:
        host = torch.arange(3)
        host.to(CPU, non_blocking=True).add_(1)
        assert host.tolist() == [0, 1, 2]
        assert int(host.max()) == 2
        one_hot = torch.nn.functional.one_hot(host.to(CPU, non_blocking=True), 3)
        one_hot[torch.zeros(2, dtype=torch.int64, device=CPU)]
    assert waits.found == set()


def test_fake_tensors_of_two_devices_do_not_mix() -> None:
    with fake_cuda():
        fake = torch.ones(3, device="cuda")
        with Waits() as waits:
            fake.cpu()
            torch.ones(3).to(CUDA)
            torch.ones(3).to(CUDA, non_blocking=True)
            float(fake.sum())
        with pytest.raises(RuntimeError, match=r"two (different )?devices"):
            fake + torch.ones(3)
    assert {what.partition(" in ")[0] for what in waits.found} == {
        "copy to the host", "blocking copy to the device", "_local_scalar_dense",
    }  # fmt: skip
