"""Step time and memory of VRAdam against torch's AdamW, form by form: `make bench`.

Two optimizers of one form run in one process, a step each in turn, so that whatever else the machine does falls on both
alike. A ratio is the median over rounds of (VRAdam's step / the step of AdamW in the same form just before);
peak memory is what parameters, gradients and state hold plus the most that a step allocates on top.

The gate needs a norm of velocity and gradient before the kernel may run, so the least that a step can cost is AdamW's
and one read of both. `floor` is that least as torch can do it: AdamW's step and one torch.dot(v, g) for each parameter,
over AdamW's step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from unittest import mock

import timing
import torch
from torch import nn
from vrbench.optimizers import VRAdam, gate

FORMS: dict[str, dict[str, bool]] = {
    "for-loop": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "fused, without numba": {"fused": True},
}
STEP_BAR = {"at_most": 1.5}


def resnet18() -> list[torch.Size]:
    from torchvision.models import resnet18 as build

    return [p.shape for p in build().parameters()]


def small_layers() -> list[torch.Size]:
    return [torch.Size((64, 64))] * 200


def transformer() -> list[torch.Size]:
    layer = nn.TransformerEncoderLayer(512, 8, 2048)
    model = nn.ModuleList([nn.Embedding(10_000, 512), nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)])
    return [p.shape for p in model.parameters()]


SHAPES: dict[str, Callable[[], list[torch.Size]]] = {
    "resnet18": resnet18,
    "200 of 64x64": small_layers,
    "transformer 24M": transformer,
}


def build(
    kind: Callable[..., torch.optim.Optimizer], shapes: list[torch.Size], flags: Any, device: str = "cpu"
) -> torch.optim.Optimizer:
    """An optimizer over fresh parameters that all have a gradient."""
    noise = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=noise).to(device).requires_grad_() for shape in shapes]
    for p in params:
        p.grad = (0.01 * torch.randn(p.shape, generator=noise)).to(device)
    return kind(params, **flags)


def held_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What parameters, gradients and state hold between steps."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    tensors = [*params, *(p.grad for p in params)]
    tensors += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(t.nbytes for t in tensors)


def step_bytes(optimizer: torch.optim.Optimizer) -> int:
    """The most that one step allocates on top, from the profiler's record of every allocation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimizer.step()
    results = profile.profiler.kineto_results
    events = sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    now = peak = 0
    for event in events:
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def read_once(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """A pass that reads each velocity and its gradient once and does nothing else: torch.dot of the two."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    rows = [(optimizer.state[p]["exp_avg"].view(-1), p.grad.view(-1)) for p in params if p.grad is not None]
    return lambda: [torch.dot(v, g) for v, g in rows]


def measure(shapes: list[torch.Size], forms: list[str], rounds: int) -> Iterator[dict[str, Any]]:
    """One row a form; two optimizers are held at a time, so that memory and cache are those of a real run."""
    for form in forms:
        flags = FORMS[form]
        theirs, ours = build(torch.optim.AdamW, shapes, flags), build(VRAdam, shapes, flags)
        without = mock.patch.object(gate, "_compiled", return_value=None)
        with without if form.endswith("without numba") else nullcontext():
            for _ in range(3):
                theirs.step()
                ours.step()
            sides: dict[str, Callable[[], object]]
            sides = {"adamw": theirs.step, "vradam": ours.step, "read": read_once(theirs)}
            taken = timing.in_turns(sides, rounds, warm_up=0)
        steps = timing.ratio(taken["vradam"], taken["adamw"])
        held = held_bytes(theirs), held_bytes(ours)
        peak = held[0] + step_bytes(theirs), held[1] + step_bytes(ours)
        yield {
            "form": form,
            "adamw_ms": 1e3 * statistics.median(taken["adamw"]),
            "vradam_ms": 1e3 * statistics.median(taken["vradam"]),
            "time_ratio": steps["ratio"],
            "time_ratio_quartiles": steps["ratio_quartiles"],
            "floor": 1 + timing.ratio(taken["read"], taken["adamw"])["ratio"],
            "adamw_peak_mb": peak[0] / 1e6,
            "vradam_peak_mb": peak[1] / 1e6,
            "memory_ratio": peak[1] / peak[0],
        }


def main() -> None:
    parser = timing.parser(__doc__, "optimizers.json", threads=2)
    parser.add_argument("--rounds", type=int, default=60, help="steps of each optimizer on each shape")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS))
    options = timing.parse(parser)

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds")
    print("shape            form                AdamW ms VRAdam ms  ratio   quartiles  floor  memory")
    rows = []
    for name, shapes in SHAPES.items():
        for row in measure(shapes(), options.forms, options.rounds):
            rows.append({"shape": name, **row})
            low, high = row["time_ratio_quartiles"]
            print(
                f"{name:<16} {row['form']:<19} {row['adamw_ms']:9.3f} {row['vradam_ms']:9.3f} {row['time_ratio']:6.2f} "
                f"{low:5.2f}-{high:<5.2f} {row['floor']:6.2f} {row['memory_ratio']:7.4f}",
                flush=True,
            )
    figures = [
        timing.figure(
            f"{row['form']} step, VRAdam over AdamW: {row['shape']}",
            STEP_BAR if row["form"] == "fused" else None,
            {"ratio": row["time_ratio"], "ratio_quartiles": row["time_ratio_quartiles"]},
        )
        for row in rows
    ]
    instructions = torch.backends.cpu.get_cpu_capability()
    timing.write(options, {"cpu": instructions, "rounds": options.rounds, "rows": rows, "figures": figures})


if __name__ == "__main__":
    main()
