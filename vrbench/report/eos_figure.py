"""One figure per run: sharpness and threshold, their ratio, effective rate, velocity, loss, over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PANELS: tuple[tuple[str, tuple[tuple[str, str], ...], bool], ...] = (
    (
        "sharpness",
        (
            ("eos/sharpness", "sharpness"),
            ("eos/preconditioned_sharpness", "preconditioned"),
            ("eos/threshold", "threshold"),
        ),
        True,
    ),
    ("sharpness / threshold", (("eos/ratio", "ratio"),), False),
    ("effective lr", (("optim/effective_lr", "effective lr"),), False),
    ("velocity²", (("optim/velocity_sq", "velocity²"),), True),
    ("loss", (("train/loss", "train"), ("val/loss", "validation")), True),
)
"""Title, (key, label) of its curves, whether the axis is logarithmic."""


def curve(rows: Iterable[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, of the rows that have a finite one."""
    found = [(int(row["step"]), float(row[key])) for row in rows if math.isfinite(row.get(key, math.nan))]
    return [step for step, _ in found], [value for _, value in found]


def draw(rows: list[dict[str, Any]], title: str, target: Path) -> None:
    """Write the figure (format by suffix: png, svg, pdf). Panels without data are left out.

    Raises ValueError where no row has an `eos/` metric: the run had no probe=eos.
    """
    if not any(key.startswith("eos/") for row in rows for key in row):
        raise ValueError(f"{title}: no eos/ metric among its rows; train it with probe=eos")
    from matplotlib.figure import Figure

    panels = [
        (name, drawn, logarithmic)
        for name, curves, logarithmic in PANELS
        if (drawn := [(key, label) for key, label in curves if curve(rows, key)[0]])
    ]
    figure = Figure(figsize=(7, 2.1 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, curves, logarithmic) in zip(axes, panels, strict=True):
        for key, label in curves:
            steps, values = curve(rows, key)
            style = {"color": "black", "linestyle": "--"} if key == "eos/threshold" else {}
            axis.plot(steps, values, label=label, linewidth=1.2, **style)
        if name == "sharpness / threshold":
            axis.axhline(1.0, color="black", linestyle="--", linewidth=1.2)
        if logarithmic and all(value > 0 for key, _ in curves for value in curve(rows, key)[1]):
            axis.set_yscale("log")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        if len(curves) > 1:
            axis.legend(fontsize="small")
    axes[-1].set_xlabel("step")
    figure.suptitle(title, fontsize="medium")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)
