"""One figure per arm: sharpness and threshold, their ratio, effective rate, velocity, loss, over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vrbench.report import curves, lines
from vrbench.report.arms import Arm
from vrbench.report.style import Look, NoData, headline, legend_below, look_of, panels
from vrbench.report.view import DEFAULT, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "sharpness",
        (
            ("eos/sharpness", "sharpness"),
            ("eos/preconditioned_sharpness", "preconditioned sharpness"),
            ("eos/threshold", "threshold"),
        ),
    ),
    ("sharpness / threshold", (("eos/ratio", "ratio"),)),
    ("effective lr", (("optim/effective_lr", "effective lr"),)),
    ("velocity²", (("optim/velocity_sq", "velocity²"),)),
    ("loss", (("train/loss", "training loss"), ("val/loss", "validation loss"))),
)
"""Title, and (key, label) of its curves."""
LOOKS = {
    "eos/sharpness": Look(0, 0, 0),
    "eos/preconditioned_sharpness": Look(1, 1, 1),
    "eos/threshold": Look(6, 4, 2),
    "train/loss": Look(2, 0, 3),
    "val/loss": Look(3, 1, 4),
}
"""Of the curves that share a panel; others have the arm's."""


def curve(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric of one run, of the rows that have a finite one."""
    found = [(int(row["step"]), float(row[key])) for row in rows if math.isfinite(row.get(key, math.nan))]
    return [step for step, _ in found], [value for _, value in found]


def measured(arm: Arm) -> bool:
    """Whether a run of the arm has `eos/` metrics: it was trained with probe=eos."""
    return any(key.startswith("eos/") for run in arm.runs for key in curves.columns(run))


def figure(arm: Arm, view: View = DEFAULT) -> Figure:
    """The figure of one arm: means over its seeds, with bands. Panels without data are left out.

    Raises NoData where no run was measured.
    """
    if not measured(arm):
        raise NoData("no run has eos/ metrics; train with probe=eos")
    found = {key: curves.curve(arm, key) for _, own in PANELS for key, _ in own}
    drawn = [(name, kept) for name, own in PANELS if (kept := [(key, label) for key, label in own if found[key]])]
    figure, axes = panels(len(drawn), height=1.6, width=5.5, size=view.size)
    for axis, (name, own) in zip(axes, drawn, strict=True):
        axis.sharex(axes[0])
        placed = []
        for key, label in own:
            line, look = found[key], LOOKS.get(key, look_of(arm.optimizer))
            assert line is not None
            lines.draw(axis, line, look, label if key in LOOKS else f"_{label}")
            placed.append((line, look))
        lines.frame(axis, placed, rule=1.0 if name == "sharpness / threshold" else None)
        if name == "sharpness / threshold":
            axis.axhline(1.0, color="black", linestyle="--", linewidth=0.9)
        axis.set_ylabel(name)
        axis.label_outer()
    axes[-1].set_xlabel("step")
    ends = [line.steps for line in found.values() if line]
    first, last = min(steps[0] for steps in ends), max(steps[-1] for steps in ends)
    if first < last:  # of one step matplotlib sets its own limits
        axes[0].set_xlim(first, last)
    headline(figure, f"{arm.task}, {arm.model}, {view.described(arm)}")
    marks = any(line.get_label() == "_beyond" for axis in axes for line in axis.lines)
    shown = [line for _, own in drawn for key, _ in own if (line := found[key])]
    note = lines.told(shown, marks=marks)
    legend_below(figure, axes, view.size, note)
    return figure
