"""Steps do without torch's compiler until something compiles; then it is there, whole, whichever way it is asked for.

Each case is a process of its own: one that has imported the compiler cannot be made to forget it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

STEPS = """
import sys, torch
from vrbench.training.compiler import wait_for_compiler
wait_for_compiler()
wait_for_compiler()
model = torch.nn.Linear(2, 1)
def step(optimizer):
    optimizer.zero_grad()
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    return optimizer
optimizer = step(torch.optim.AdamW(model.parameters()))
optimizer.load_state_dict(optimizer.state_dict())
assert 'torch._dynamo.eval_frame' not in sys.modules
"""

WAYS = {
    "a module of it": "import torch._dynamo.config as config; assert config is torch._dynamo.config",
    "a name of a module": "from torch._dynamo.eval_frame import OptimizedModule as found\n"
    "import torch._dynamo as whole; assert whole.OptimizedModule is found",
    "a module that it does not import itself": "import torch._dynamo.testing; torch._dynamo.testing.CompileCounter()",
    "an attribute": "assert torch._dynamo.config.recompile_limit > 0",
    "disabling a class": "torch._dynamo.disable(torch.nn.Linear)",
    "disabling without a function": "@torch._dynamo.disable(recursive=False)\ndef f(): return 1\nassert f() == 1",
    "its own interface": "torch.compiler.reset()",
}

WHOLE = """
assert type(torch._dynamo) is type(torch) and sys.modules['torch._dynamo'] is torch._dynamo
for name in {'config', 'eval_frame', 'testing'} & vars(torch._dynamo).keys():
    module = getattr(torch._dynamo, name)
    assert sys.modules[f'torch._dynamo.{name}'] is module, name
    assert module.__spec__.origin == module.__file__ and module.__spec__.loader is module.__loader__, name
assert torch._dynamo.OptimizedModule is torch._dynamo.eval_frame.OptimizedModule
"""
"""One compiler, with one module of each name."""


def run(script: str) -> None:
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("way", WAYS)
def test_whatever_asks_for_the_compiler_gets_it(way: str) -> None:
    run("\n".join([STEPS, WAYS[way], WHOLE, "step(torch.optim.SGD(model.parameters(), lr=0.1))"]))


def test_a_model_compiles_after_eager_steps() -> None:
    """The optimizer that stepped without the compiler is left alone by it, as one of a process that began with it."""
    run(
        STEPS + "from torch._dynamo.testing import CompileCounter\n"
        "counter = CompileCounter()\n"
        "compiled = torch.compile(model, backend=counter)\n"
        "assert torch.equal(compiled(torch.ones(3, 2)), model(torch.ones(3, 2)))\n"
        "assert counter.frame_count == 1\n"
        "step(optimizer).add_param_group({'params': [torch.nn.Parameter(torch.ones(1))]})\n"
        "assert len(optimizer.state_dict()['param_groups']) == 2\n"
        "torch.compile(optimizer.step, backend=counter)()\n"
        "assert counter.frame_count > 1\n"
    )


def test_a_compiler_that_is_loaded_stays() -> None:
    run(
        "import sys, torch, torch._dynamo as before\n"
        "from vrbench.training.compiler import wait_for_compiler\n"
        "finders = list(sys.meta_path)\n"
        "wait_for_compiler()\n"
        "assert sys.meta_path == finders and sys.modules['torch._dynamo'] is before\n"
    )


def test_walking_through_all_modules_loads_nothing() -> None:
    run(STEPS + "import inspect; inspect.getmodule(step.__code__)\nassert 'torch._dynamo.config' not in sys.modules")


def test_a_step_by_any_way_gives_the_same_numbers() -> None:
    run(
        STEPS + "import copy\n"
        "other = copy.deepcopy(model); state = copy.deepcopy(optimizer.state_dict())\n"
        "step(optimizer); eager = [p.clone() for p in model.parameters()]\n"
        "import torch._dynamo.config\n"
        "model = other; again = torch.optim.AdamW(model.parameters()); again.load_state_dict(state); step(again)\n"
        "assert all(map(torch.equal, eager, model.parameters()))\n"
    )
