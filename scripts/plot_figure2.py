"""Figure 2 of arXiv 2505.13196 from a published study, one line a run: what `reproduce_paper.py figure2` trained.

    python scripts/plot_figure2.py results/paper_figure2 --output results/paper_figure2/figure2.svg

Training loss and accuracy; the Hessian's largest eigenvalue and that of the preconditioned one, with the threshold that
either meets (thin, dashed); the effective rate as a share of the largest. The authors' public script logs a rate from
gradient norms although its gate is on the velocity: that one is drawn too, where one run alone has a gate.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from committed import Committed
from run_curves import RunCurves

from vrbench.report.style import Look, legend_below, looks, panels, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    ("train/loss", "(a) training loss", "log"),
    ("train/accuracy", "(b) training accuracy", "linear"),
    ("eos/sharpness", "(c) sharpness", "log"),
    ("eos/preconditioned_sharpness", "preconditioned sharpness", "log"),
    ("share", "(d) effective rate / largest", "linear"),
)


def _line(axis: Axes, curves: RunCurves, key: str, **how: Any) -> None:
    values = curves.of(key)
    axis.plot(list(values), list(values.values()), **how)


def _draw(axis: Axes, curves: RunCurves, key: str, label: str, look: Look) -> None:
    _line(axis, curves, key, label=label, **look.line)
    of_threshold = "eos/preconditioned_sharpness" if curves.of("eos/preconditioned_sharpness") else "eos/sharpness"
    if key == of_threshold:
        _line(axis, curves, "eos/threshold", color=look.color, linestyle="--", linewidth=0.9)


def drawn(study: Committed) -> bytes:
    """The figure of a study's runs that are over, as SVG. Raises OSError, and ValueError where there is none."""
    if not study.curves:
        raise ValueError("no run that is over")
    own = looks((curves.optimizer, label) for label, curves in study.curves.items())
    with styled():
        figure, axes = panels(len(PANELS), height=1.9)
        for label, curves in study.curves.items():
            for axis, (key, _, _) in zip(axes, PANELS, strict=True):
                _draw(axis, curves, key, label, own[label])
        gated = [label for label, curves in study.curves.items() if curves.of("gradient_share")]
        if len(gated) == 1:
            _line(axes[-1], study.curves[gated[0]], "gradient_share", color="0.5", linestyle=":",
                  label=f"{gated[0]}, from gradient norms")  # fmt: skip
        for axis, (_, title, scale) in zip(axes, PANELS, strict=True):
            axis.set_yscale(scale)
            axis.set_title(title)
        axes[-1].set_xlabel("step")
        legend_below(figure, axes, note="thin, dashed: the threshold that a sharpness meets")
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
