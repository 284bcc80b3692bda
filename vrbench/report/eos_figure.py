"""One figure per run: sharpness and threshold, their ratio, effective rate, velocity, loss, over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vrbench.report.style import logarithmic, look_of, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def figure(rows: list[dict[str, Any]], title: str) -> Figure:
    """The figure of one run. Panels without data are left out.

    Raises ValueError where no row has an `eos/` metric: the run had no probe=eos.
    """
    if not any(key.startswith("eos/") for row in rows for key in row):
        raise ValueError(f"{title}: no eos/ metric among its rows; train it with probe=eos")
    drawn = [
        (name, own, log)
        for name, curves, log in PANELS
        if (own := [(key, label) for key, label in curves if curve(rows, key)[0]])
    ]
    figure, axes = panels(len(drawn), 1, height=1.9)
    for axis, (name, curves, log) in zip(axes, drawn, strict=True):
        axis.sharex(axes[0])
        for number, (key, label) in enumerate(curves):
            steps, line = curve(rows, key)
            look = {"color": "black", "linestyle": "--"} if key == "eos/threshold" else look_of(number).line
            axis.plot(steps, line, label=label, **look)
        if name == "sharpness / threshold":
            axis.axhline(1.0, color="black", linestyle="--")
        values = [value for key, _ in curves for value in curve(rows, key)[1]]
        if log and min(values) > 0:
            logarithmic(axis, "y", values)
        axis.set_ylabel(name)
        axis.label_outer()
        if len(curves) > 1:
            axis.legend()
    axes[-1].set_xlabel("step")
    figure.suptitle(title)
    return figure
