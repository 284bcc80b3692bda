"""Figure 2 of arXiv 2505.13196 from a published study, one line a run: what `reproduce_paper.py figure2` trained.

    python scripts/plot_figure2.py results/paper_figure2 --output results/paper_figure2/figure2.svg

Training loss and accuracy; the Hessian's largest eigenvalue, and that of the preconditioned one beside the threshold
that it meets (dashed); the effective rate as a share of the largest. The authors' public script logs a rate from
gradient norms although its gate is on the velocity: that one is drawn too, where a run has a gate.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from committed import Committed

from vrbench.report.eos_figure import curve
from vrbench.report.style import Look, looks, panels, save, styled
from vrbench.runs.records import find_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    ("train/loss", "(a) training loss", "log"),
    ("train/accuracy", "(b) training accuracy", "linear"),
    ("eos/sharpness", "(c) sharpness", "log"),
    ("eos/preconditioned_sharpness", "preconditioned sharpness", "log"),
    ("share", "(d) effective rate / largest", "linear"),
)


def with_shares(rows: Sequence[Mapping[str, Any]], optimizer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows with `share`, the effective rate over lr, and for a gated optimizer `gradient_share`, the gate that
    1 / (1 + min(beta3 |gradient|², alpha1)) would be."""
    found = []
    for row in rows:
        own = dict(row)
        if "optim/effective_lr" in row:
            own["share"] = row["optim/effective_lr"] / optimizer["lr"]
        if "beta3" in optimizer and "optim/grad_norm" in row:
            own["gradient_share"] = 1 / (1 + min(optimizer["beta3"] * row["optim/grad_norm"] ** 2, optimizer["alpha1"]))
        found.append(own)
    return found


def _draw(axis: Axes, rows: Sequence[Mapping[str, Any]], key: str, label: str, look: Look) -> None:
    axis.plot(*curve(rows, key), label=label, **look.line)
    if key == "eos/preconditioned_sharpness":
        axis.plot(*curve(rows, "eos/threshold"), color=look.color, linestyle="--", linewidth=0.9)
    if key == "share" and any("gradient_share" in row for row in rows):
        steps = curve(rows, "gradient_share")
        axis.plot(*steps, color="0.5", linestyle=":", label=f"{label}, from gradient norms")


def drawn(study: Committed) -> bytes:
    """The figure of a study's runs that are over, as SVG. Raises OSError, and ValueError where there is none."""
    runs = [run for run in find_runs(study.records) if run.summary is not None]
    names = [f"{run.manifest['choices']['optimizer']} {run.manifest['seed']}" for run in runs]
    if not names:
        raise ValueError("no run that is over")
    own = looks((name.partition(" ")[0], name) for name in names)
    with styled():
        figure, axes = panels(len(PANELS), height=1.9)
        for run, name in zip(runs, names, strict=True):
            optimizer = yaml.safe_load((run.directory / "config.yaml").read_text(encoding="utf-8"))["optimizer"]
            rows = with_shares(list(run.rows()), optimizer)
            for axis, (key, _, _) in zip(axes, PANELS, strict=True):
                _draw(axis, rows, key, name.partition(" ")[0], own[name])
        for axis, (_, title, scale) in zip(axes, PANELS, strict=True):
            axis.set_yscale(scale)
            axis.set_title(title)
        axes[0].legend()
        axes[-1].legend()
        axes[-1].set_xlabel("step")
        content = io.BytesIO()
        save(figure, content, "svg")
    return content.getvalue()


def main(words: Sequence[str] | None = None) -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a folder of results/ with records.tar.xz")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(words)
    options.output.write_bytes(drawn(Committed(options.study)))


if __name__ == "__main__":
    main()
