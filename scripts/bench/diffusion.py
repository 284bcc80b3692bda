"""Diffusion training in the harness against a bare loop that does the same work: steps/s and peak memory.

    python scripts/bench/diffusion.py            # writes results/bench/diffusion.json

Rates: blocks of steps of either side alternate in one process, in an order that swaps from pair to pair; the figure is
the median ratio over the pairs. Memory: each side trains and evaluates once in a fresh process; the figure is the ratio
of the peaks of resident memory. Images are random, of the size of MNIST's or of scikit-learn's digits: what they show
costs nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import timing
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from trainer import DEFAULTS, NoWriter, WithoutEvaluation
from vrbench.optimizers.vradam import VRAdam
from vrbench.tasks.diffusion import Diffusion

from vrbench.contracts import TrainerSettings
from vrbench.data.images import ImageData
from vrbench.models.unet_tiny import TinyUNet
from vrbench.objectives.diffusion_process import DiffusionProcess, Sampler
from vrbench.probes.optim import OptimProbe
from vrbench.randomness import Streams
from vrbench.runs.records import peak_memory_bytes
from vrbench.training.trainer import Trainer

TIMESTEPS, DECAY = 400, 0.99
CASES = {"digits": (8, 1079, 64), "mnist": (28, 54_000, 128)}
"""Side of the images, how many, and the batch size."""


def images_of(case: str) -> torch.Tensor:
    """Random pixels, uint8 (N, H, W, 1)."""
    size, count, _ = CASES[case]
    return torch.randint(256, (count, size, size, 1), generator=torch.Generator().manual_seed(0)).byte()


def model_of(case: str) -> TinyUNet:
    """unet_tiny as conf/model/unet_tiny.yaml has it."""
    size = CASES[case][0]
    torch.manual_seed(0)
    return TinyUNet((1, size, size), 1, channels=[24, 48], groups=8, time_features=64, attention=True)


def bare_side(case: str) -> Callable[[int], None]:
    """What one would write by hand: v prediction, VRAdam, averaged weights; returns `run(steps)`."""
    model, images, batch_size = model_of(case), images_of(case), CASES[case][2]
    optimizer = VRAdam(model.parameters(), lr=1e-3)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    time_line = torch.arange(TIMESTEPS + 1) / TIMESTEPS
    alphabar = (torch.cos((time_line[1:] + 0.008) / 1.008 * torch.pi / 2) ** 2).clamp(1e-5, 1 - 1e-5)

    def run(steps: int) -> None:
        for _ in range(steps):
            pixels = images[torch.randint(len(images), (batch_size,))]
            x0 = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            t = torch.randint(TIMESTEPS, (batch_size,))
            noise = torch.randn_like(x0)
            signal, sigma = alphabar[t].sqrt()[:, None, None, None], (1 - alphabar[t]).sqrt()[:, None, None, None]
            loss = F.mse_loss(model(signal * x0 + sigma * noise, t), signal * noise - sigma * x0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(model)

    return run


class KeepsNothing(NoWriter):
    """Takes pictures too."""

    def image(self, step: int, picture: torch.Tensor, *, last: bool) -> None:
        pass


def harness_side(case: str, *, evaluate: bool) -> Callable[[int], None]:
    """The same through task and trainer, with the default probe; returns `run(steps)`."""
    model, images, batch_size = model_of(case), images_of(case), CASES[case][2]
    splits = {"train": images, "val": images[:500], "test": images[-500:]}
    data = ImageData(splits, {key: torch.zeros(len(part), dtype=torch.int64) for key, part in splits.items()}, 10)
    process = DiffusionProcess(TIMESTEPS, "cosine", 1e-4, 0.02, "v", None)
    task: Any = Diffusion(case, data, process, Sampler("ddim", 20), None, batch_size, False, 1024, 4, 16)
    if not evaluate:
        task = WithoutEvaluation(task)
    optimizer = VRAdam(model.parameters(), lr=1e-3)

    def run(steps: int) -> None:
        settings = TrainerSettings(**{**DEFAULTS, "max_steps": steps, "eval_every": steps, "ema_decay": DECAY})
        schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        writer: Any = KeepsNothing()
        Trainer(settings, task, model, optimizer, schedule, {"optim": OptimProbe()}, Streams(0)).fit(writer)

    return run


def rates(case: str, block: int, pairs: int) -> dict[str, Any]:
    """Steps per second of either side and their ratio, medians over the pairs, with the ratio's spread."""
    sides = {"bare": bare_side(case), "vrbench": harness_side(case, evaluate=False)}
    taken = timing.in_turns({name: partial(run, block) for name, run in sides.items()}, pairs, swap=True)
    medians = {f"{name}_steps_per_s": block / statistics.median(taken[name]) for name in sides}
    return {**medians, **timing.ratio(taken["bare"], taken["vrbench"])}


def peaks(case: str, steps: int, threads: int) -> dict[str, float]:
    """Peak resident memory of either side in a process of its own, in MB, and their ratio."""
    found = {}
    for name in ("bare", "vrbench"):
        arguments = [sys.executable, __file__, "--side", name, "--case", case, "--block", str(steps)]
        done = subprocess.run([*arguments, "--threads", str(threads)], capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
    megabytes = {f"{name}_peak_mb": value / 1e6 for name, value in found.items()}
    return {**megabytes, "ratio": found["vrbench"] / found["bare"]}


def main() -> None:
    """Measure every case, print a line each, and write the JSON."""
    parser = timing.parser(__doc__, "diffusion.json", threads=1)
    parser.add_argument("--block", type=int, default=30, help="steps in a block")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of blocks")
    parser.add_argument("--case", choices=[*CASES, "all"], default="all")
    parser.add_argument("--side", choices=["bare", "vrbench"], help="train this side alone and print its peak memory")
    options = timing.parse(parser)
    if options.side is not None:
        run = bare_side(options.case) if options.side == "bare" else harness_side(options.case, evaluate=True)
        run(options.block)
        print(peak_memory_bytes())
        return
    results: dict[str, Any] = {"block_steps": options.block, "pairs": options.pairs}
    for case in CASES if options.case == "all" else [options.case]:
        speed = rates(case, options.block, options.pairs)
        memory = peaks(case, options.block, options.threads)
        results[case] = {"rates": speed, "memory": memory}
        print(f"{case:8s} steps/s {speed['ratio']:.3f} of a bare loop, peak memory {memory['ratio']:.3f}", flush=True)
    timing.write(options, results)


if __name__ == "__main__":
    main()
