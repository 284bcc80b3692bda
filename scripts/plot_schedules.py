"""Draw every YAML of conf/schedule, at its own values and with a warm-up of 5 % (docs/schedules.md).

    python scripts/plot_schedules.py --output docs/images/schedules.svg

A run of 1,000 steps in 50 epochs; rates as shares of the optimizer's lr, at each step and after the last. A schedule of
your own is drawn with `--config-dir`, the folder that has your schedule/.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from vrbench.app.check import Kit
from vrbench.checks.schedules import SchedulePart
from vrbench.report.style import COLORS, styled
from vrbench.training.schedules import make_schedule

STEPS, EPOCH = 1000, 20
WARMUP = 0.05
LR = 0.01
ACROSS = 3


def shares(part: SchedulePart) -> list[float]:
    """The rate at each step of the run and after the last, as a share of lr."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    schedule = make_schedule(part.make, optimizer, STEPS, EPOCH)
    found = [optimizer.param_groups[0]["lr"] / LR]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*lr_scheduler", category=UserWarning)
        for _ in range(STEPS):
            optimizer.step()
            schedule.step()
            found.append(float(optimizer.param_groups[0]["lr"]) / LR)
    return found


def curves(folders: list[Path]) -> dict[str, dict[str, list[float]]]:
    """By YAML what is drawn: `{"cosine": {"as it is": […], "warmup=0.05": […]}}`."""
    kit, found = Kit(folders), {}
    for name in kit.choices("schedule"):
        part: SchedulePart = kit.part("schedule", name)
        found[name] = {"as it is": shares(part)}
        if part.settings.get("warmup", WARMUP) != WARMUP:
            found[name][f"warmup={WARMUP}"] = shares(replace(part, make=partial(part.make, warmup=WARMUP)))
    return found


def draw(found: dict[str, dict[str, list[float]]], output: Path) -> None:
    """One panel a schedule."""
    import matplotlib.pyplot as plt

    rows = -(-len(found) // ACROSS)
    with styled():
        figure, grid = plt.subplots(
            rows, ACROSS, figsize=(7.5, 1.7 * rows), sharex=True, sharey=True, squeeze=False, layout="constrained"
        )
        for axes in grid.flat[len(found) :]:
            axes.set_visible(False)
        for axes, (name, lines) in zip(grid.flat, found.items(), strict=False):
            for number, (label, line) in enumerate(lines.items()):
                places = [step / STEPS for step in range(STEPS + 1)]
                axes.plot(
                    places, line, color=COLORS[number], linestyle="solid" if number == 0 else (0, (4, 1.5)), label=label
                )
            axes.set_title(name)
            axes.set_ylim(-0.03, 1.08)
            if len(lines) > 1:
                axes.legend(frameon=False, fontsize=6.5)
        figure.supxlabel("share of the run", fontsize=9)
        figure.supylabel("share of lr", fontsize=9)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, metadata={"Date": None})
        plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/images/schedules.svg"))
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="a config folder of your own")
    options = parser.parse_args(arguments)
    draw(curves(options.config_dir), options.output)
    print(options.output)


if __name__ == "__main__":
    main()
