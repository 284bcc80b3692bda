"""Lay out a W&B dashboard for vrbench's runs: curves, effective rate, edge of stability, samples, cost.

    vrbench wandb workspace                              # prints the layout; needs no account
    vrbench wandb workspace --entity me --project vrbench --save

Curves are means over the seeds of a configuration, with the standard deviation. Needs wandb-workspaces:
pip install 'vrbench[workspace]'.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

LINES: dict[str, tuple[tuple[str, tuple[str, ...], bool], ...]] = {
    "Curves": (
        ("training loss", ("train/loss",), True),
        ("validation loss", ("val/loss",), True),
        ("validation accuracy", ("val/accuracy",), False),
        ("validation perplexity", ("val/perplexity",), True),
        ("L1 distance (GFlowNets)", ("val/l1",), False),
    ),
    "Effective rate": (
        ("rate: set and effective", ("optim/lr", "optim/effective_lr"), True),
        ("VRAdam's gate", ("optim/gate",), False),
        ("squared velocity", ("optim/velocity_sq",), True),
        ("norms", ("optim/grad_norm", "optim/update_norm", "optim/param_norm"), True),
    ),
    "Edge of stability": (
        ("sharpness", ("eos/sharpness",), True),
        ("preconditioned sharpness and threshold", ("eos/preconditioned_sharpness", "eos/threshold"), True),
        ("sharpness / threshold", ("eos/ratio",), False),
    ),
    "Cost": (
        ("steps per second", ("time/steps_per_s",), False),
        ("share of the probes", ("time/probe_share",), False),
    ),
}
"""The line plots of each section: title, the keys of metrics.jsonl, whether y is logarithmic."""

PICTURES = "Samples"


def workspace(entity: str, project: str, name: str) -> Workspace:
    """The dashboard, as an object. Raises ImportError without wandb-workspaces."""
    from wandb_workspaces.reports.v2 import Config, LinePlot, MediaBrowser
    from wandb_workspaces.workspaces import Section, Workspace, WorkspaceSettings

    sections = [
        Section(
            name=section,
            is_open=True,
            panels=[
                LinePlot(
                    title=title,
                    x="step",
                    y=list(keys),
                    log_y=logarithmic,
                    groupby=Config("arm"),
                    groupby_aggfunc="mean",
                    groupby_rangefunc="stddev",
                )
                for title, keys, logarithmic in plots
            ],
        )
        for section, plots in LINES.items()
    ]
    sections.append(Section(name=PICTURES, is_open=True, panels=[MediaBrowser(media_keys=["samples"], num_columns=2)]))
    settings = WorkspaceSettings(x_axis="step", max_runs=50)
    return Workspace(entity=entity, project=project, name=name, sections=sections, settings=settings)


def main(words: Sequence[str]) -> None:
    """Print the layout, or save it. Raises ImportError where there is no package, ValueError where no key or server."""
    parser = argparse.ArgumentParser(
        prog="vrbench wandb workspace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", help="W&B user or team; needed to save")
    parser.add_argument("--project", default="vrbench")
    parser.add_argument("--name", default="vrbench", help="of the dashboard")
    parser.add_argument("--save", action="store_true", help="send it to W&B (needs a key)")
    options = parser.parse_args(words)
    if options.save and options.entity is None:
        parser.error("--save needs --entity, the user or team that the project belongs to")
    made = workspace(options.entity or "nobody", options.project, options.name)
    if options.save:
        save(made)
        return
    for section in made.sections:
        print(section.name)
        for title, keys, _ in LINES.get(section.name, ()):
            print(f"  {title}: {', '.join(keys)}")


def save(made: Workspace) -> None:
    """Send the dashboard to W&B, which prints its address. Raises ValueError with W&B's first line where it fails."""
    try:
        made.save()
    except Exception as error:  # W&B has errors of its own, its requests others
        reason = str(error).strip().splitlines()
        raise ValueError(f"not saved: {reason[0] if reason else type(error).__name__}") from error
