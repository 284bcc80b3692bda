"""VRAdam and the trainer on a CUDA device, against bars: `make gpu`. Writes results/bench/gpu.json.

    optimizers  a step of VRAdam, fused and foreach, over one of torch's fused AdamW
    whole       a whole training step with VRAdam over one with fused AdamW
    trainer     the trainer's rate over a bare loop's
    memory      peak memory of the trainer over a bare loop's
    launcher    eight small runs one after the other over eight at a time (joblib)

Sides take turns in one process; the clock is read when the device has ended what it was given. A figure is the median
over rounds of the ratio within a round. What is trained: ResNet-18 on images of CIFAR's shape, in bfloat16,
channels_last, compiled; GPT-2 of 124 M parameters in bfloat16. Pixels and order are random: the speed is that of real
ones. A figure that does not meet its bar is written as it is.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import optimizer_step
import timing
import torch
from language import next_token_loss
from torch import nn
from trainer import Contest, cross_entropy, in_blocks, random_images
from vrbench.optimizers import VRAdam

STEP_BAR = {"at_most": 1.3}
WHOLE_BAR = {"at_most": 1.005}
TRAINER_BAR = {"at_least": 0.97}
VOCABULARY = 50_257
"""GPT-2's own; its tokens are those of a smaller one, which costs the same."""
FORMS = ("fused", "foreach")
RUNS = 8


# ---- what is trained ------------------------------------------------------------------------------------------------


def gpt2(options: argparse.Namespace) -> nn.Module:
    from vrbench.models.gpt2 import GPT2

    return GPT2((options.context,), VOCABULARY, options.size, None, None, None, 0.1)


def resnet(task: Any) -> nn.Module:
    from vrbench.models.resnet18 import resnet18

    return resnet18(task.input_shape, task.output_dim, "cifar")


def contests(options: argparse.Namespace, device: torch.device, optimizer: Any) -> dict[str, Callable[[], Contest]]:
    """What both loops train with an optimizer, by name; each is made when it is asked for."""

    def images() -> Contest:
        task = random_images(50 * options.images, options.images)
        task.to(device)
        fast = {"precision": "bfloat16", "channels_last": True, "compile": True}
        return Contest(task, partial(resnet, task), optimizer, fast, cross_entropy, device)

    def tokens() -> Contest:
        from vrbench.tasks.language_modeling import LanguageModeling

        from vrbench.data.text import pydoc
        from vrbench.data.tokenization import BPE

        batch, context = options.sequences, options.context
        task = LanguageModeling("pydoc", batch, batch, context, "random", None, pydoc(0.1, 0.1), BPE(1024))
        task.to(device)
        return Contest(task, partial(gpt2, options), optimizer, {"precision": "bfloat16"}, next_token_loss, device)

    return {"ResNet-18 bf16 channels_last compile": images, f"GPT-2 {options.size} bf16": tokens}


def adamw(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-4, fused=True)


def vradam(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return VRAdam(parameters, lr=1e-4, fused=True)


# ---- what is measured -----------------------------------------------------------------------------------------------


def optimizers(options: argparse.Namespace, device: torch.device) -> Iterator[timing.Figure]:
    """A step of each form over fused AdamW's, in blocks of steps: the host may run ahead of the device, as it does."""
    with torch.device("meta"):
        tokens = [p.shape for p in gpt2(options).parameters()]
    named = {name: optimizer_step.SHAPES[name]() for name in ("resnet18", "200 of 64x64")}
    for name, shapes in {**named, f"GPT-2 {options.size}": tokens}.items():
        for form in FORMS:
            theirs = optimizer_step.build(torch.optim.AdamW, shapes, {"fused": True}, str(device))
            ours = optimizer_step.build(VRAdam, shapes, optimizer_step.FORMS[form], str(device))
            for _ in range(3):
                theirs.step()
                ours.step()
            sides: dict[str, Callable[[], object]] = {"adamw": theirs.step, "vradam": ours.step}
            calls = dict.fromkeys(sides, options.block)
            taken = timing.in_turns(
                sides, options.rounds, warm_up=0, calls=calls, swap=True, wait=torch.cuda.synchronize
            )
            times = {f"{side}_ms": 1e3 * sorted(seconds)[len(seconds) // 2] for side, seconds in taken.items()}
            yield timing.figure(
                f"step: {name}, {form}", STEP_BAR, timing.ratio(taken["vradam"], taken["adamw"]), unit="×", **times
            )


def whole(options: argparse.Namespace, device: torch.device) -> Iterator[timing.Figure]:
    """Whole training steps of a bare loop with either optimizer."""
    for name, contest in contests(options, device, adamw).items():
        runs = {"adamw": contest().bare(), "vradam": contests(options, device, vradam)[name]().bare()}
        found = in_blocks(runs, "adamw", "vradam", options.pairs, torch.cuda.synchronize)
        yield timing.figure(f"whole step: {name}", WHOLE_BAR, found, unit="×", **_rates(found))


def trainer(options: argparse.Namespace, device: torch.device) -> Iterator[timing.Figure]:
    """The trainer's rate over a bare loop's."""
    for name, contest in contests(options, device, adamw).items():
        made = contest()
        runs = {"bare": made.bare(), "vrbench": made.vrbench()}
        found = in_blocks(runs, "vrbench", "bare", options.pairs, torch.cuda.synchronize)
        yield timing.figure(f"trainer: {name}", TRAINER_BAR, found, unit="×", **_rates(found))


def memory(options: argparse.Namespace, device: torch.device) -> Iterator[timing.Figure]:
    """Peak memory of either loop, alone on the device but for the data."""
    for name, contest in contests(options, device, adamw).items():
        made = contest()
        bytes_ = {"bare": peak(made.bare, device), "vrbench": peak(made.vrbench, device)}
        ratio = timing.ratio([bytes_["vrbench"]], [bytes_["bare"]])
        yield timing.figure(
            f"peak memory: {name}", None, ratio, unit="×", **{f"{k}_bytes": v for k, v in bytes_.items()}
        )


def peak(make: Callable[[], Callable[[int], None]], device: torch.device) -> int:
    """Bytes that a loop takes at most over a dozen steps, what it holds included and what was there before not."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    run = make()
    run(3)  # what compiling and choosing kernels takes is no part of it
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    run(12)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def launcher(options: argparse.Namespace, device: torch.device) -> Iterator[timing.Figure]:
    """Eight small runs by the command line, serial and by joblib in turns; the start of the command is in both."""
    at_a_time = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={RUNS}")
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            "serial": partial(eight_runs, folder, device, options.run_steps),
            "joblib": partial(eight_runs, folder, device, options.run_steps, *at_a_time),
        }
        taken = timing.in_turns(sides, options.multiruns, warm_up=0, swap=True)
    ratio = timing.ratio(taken["serial"], taken["joblib"])
    seconds = {f"{side}_s": sorted(took)[len(took) // 2] for side, took in taken.items()}
    yield timing.figure(f"{RUNS} small runs: serial over joblib", None, ratio, unit="×", **seconds)


def eight_runs(folder: str, device: torch.device, steps: int, *overrides: str) -> None:
    """Digits by an MLP, eight seeds. Raises CalledProcessError where a run fails."""
    place = tempfile.mkdtemp(dir=folder)
    seeds = ",".join(map(str, range(RUNS)))
    chosen = ["task=digits", "optimizer=vradam", f"seed={seeds}", "logger=none", f"results_dir={place}"]
    limits = [f"trainer.max_steps={steps}", f"trainer.device={device}", "trainer.threads=1"]
    command = [sys.executable, "-m", "vrbench", "-m", *chosen, *limits, *overrides]
    paths = os.pathsep.join([str(timing.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths})


def _rates(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not key.startswith("ratio")}


MEASURES: dict[str, Callable[[argparse.Namespace, torch.device], Iterator[timing.Figure]]] = {
    "optimizers": optimizers,
    "whole": whole,
    "trainer": trainer,
    "memory": memory,
    "launcher": launcher,
}


# ---- the command ----------------------------------------------------------------------------------------------------


def options_of() -> argparse.Namespace:
    made = timing.parser(__doc__, "gpu.json", threads=4)
    made.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES), help="what to measure")
    made.add_argument("--rounds", type=int, default=30, help="blocks of optimizer steps of each side")
    made.add_argument("--block", type=int, default=50, help="optimizer steps in a block")
    made.add_argument("--pairs", type=int, default=9, help="pairs of blocks of training steps")
    made.add_argument("--images", type=int, default=512, help="images in a batch")
    made.add_argument("--sequences", type=int, default=8, help="sequences in a batch")
    made.add_argument("--context", type=int, default=1024, help="tokens of a sequence")
    made.add_argument("--size", default="124M", help="GPT-2's size, as conf/model/gpt2.yaml names them")
    made.add_argument("--run-steps", type=int, default=500, help="steps of each of the small runs")
    made.add_argument("--multiruns", type=int, default=3, help="rounds of serial and joblib")
    return timing.parse(made)


def main() -> None:
    """Measure, print, write."""
    options = options_of()
    if not torch.cuda.is_available():
        sys.exit("scripts/bench/gpu.py: no CUDA device on this machine, so nothing was measured")
    device = torch.device("cuda", torch.cuda.current_device())
    about = torch.cuda.get_device_properties(device)
    gpu = {"name": about.name, "memory_bytes": about.total_memory, "cuda": torch.version.cuda}
    print(f"{about.name}, torch {torch.__version__}")
    print(timing.HEADING)
    figures = []
    for name in options.only:
        for one in MEASURES[name](options, device):
            figures.append(one)
            print(timing.line(one), flush=True)
        gc.collect()
        torch.cuda.empty_cache()
    timing.write(options, {"gpu": gpu, "options": {**vars(options), "output": None}, "figures": figures})


if __name__ == "__main__":
    main()
