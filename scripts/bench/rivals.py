"""What a step of each optimizer of conf/optimizer costs, against torch's AdamW in the same process.

Each has its own copy of one network (two hidden layers of 256, 64 inputs, 10 classes, a batch of 128; 85,000
parameters) and takes ten steps in turn in every round, so that what is done every tenth step is in the figure (SPlus's
roots, every hundredth, are not). Two ratios to conf/optimizer/adamw.yaml, medians over the rounds with their quartiles:
of the optimizer's step alone, where gradients can be used twice, and of the whole training step, forward and backward
(twice, or with their graph, where an optimizer needs that) and step.

Time is that of this process by default, as other work may run beside it; `machine.load` in the record says how much.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing

CONF = timing.ROOT / "conf" / "optimizer"
BASE = "adamw"
STEPS = 10
"""Steps in a row of each optimizer in a round."""


def training_step(path: Path) -> tuple[Any, Callable[[], object], Any]:
    """An optimizer over a fresh network, one training step of it, and its capabilities."""
    import torch
    from torch import nn

    from vrbench.app.listing import makes
    from vrbench.checks.optimizers import advance
    from vrbench.training.capabilities import capabilities
    from vrbench.training.lengths import make_optimizer

    torch.manual_seed(0)
    layers = [nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 10)]
    model = nn.Sequential(*layers)
    inputs, labels = torch.randn(128, 64), torch.arange(128) % 10
    optimizer = make_optimizer(makes(path), model.parameters(), 400, 10)
    needs = capabilities(optimizer)
    loss = lambda: nn.functional.cross_entropy(model(inputs), labels)  # noqa: E731
    return optimizer, functools.partial(advance, optimizer, loss, needs), needs


def in_turns(sides: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a step of each side, round after round."""
    calls = dict.fromkeys(sides, STEPS)
    return timing.in_turns(sides, options.rounds, warm_up=3, calls=calls, swap=True, clock=options.clock)


def ratios(taken: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """The ratio of each side to the base's, and its milliseconds."""
    return {
        name: {"ms": 1e3 * statistics.median(times), **timing.ratio(times, taken[BASE])}
        for name, times in taken.items()
    }


def main() -> None:
    parser = timing.parser(__doc__, "rivals.json", threads=1)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of ten steps of each optimizer")
    parser.add_argument("--clock", choices=list(timing.CLOCKS), default="cpu", help="cpu: this process's own time")
    options = timing.parse(parser)
    warnings.simplefilter("ignore")

    made = {path.stem: training_step(path) for path in sorted(CONF.glob("*.yaml"))}
    whole = in_turns({name: one[1] for name, one in made.items()}, options)
    alone = {name: one[0].step for name, one in made.items() if not (one[2].two_step or one[2].create_graph)}
    steps = in_turns(alone, options)
    of_step, of_training = ratios(steps), ratios(whole)
    rows = {name: {"step": of_step.get(name), "training_step": of_training[name]} for name in made}
    for name in made:
        step = f"{of_step[name]['ratio']:7.2f}" if name in of_step else "      -"
        print(f"{name:<26} step {step}   training step {of_training[name]['ratio']:6.2f}")
    timing.write(options, {"rounds": options.rounds, "clock": options.clock, "optimizers": rows})


if __name__ == "__main__":
    main()
