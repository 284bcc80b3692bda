"""Pictures inside the page: what models drew, and the figures for print that have no chart of their own there."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO

from vrbench.report import figures
from vrbench.report.arms import Arm
from vrbench.report.style import NoData, save, styled
from vrbench.report.view import DEFAULT

WIDEST = 512
"""Samples are brought down to this many pixels of width."""
TUNING = {
    "lr-sensitivity": "Every learning rate that was tried, and the best validation there.",
    "beta3-lr": "The best validation over the learning rate and the velocity penalty.",
    "alpha1-lr": "The best validation over the learning rate and what bounds it from below.",
    "tuning-budget": "The best validation that so many trials are expected to find, and what they cost.",
}
COST = {"cost": "Training time of a step and peak memory: a bar is a mean, a dot a run."}
"""Names of figures (`figures.PER_TASK`) with what they show."""


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    data: str
    alt: str
    caption: str
    width: int
    height: int


def samples(arms: Iterable[Arm]) -> Iterator[Picture]:
    """The last picture of each arm's first run that has one."""
    from PIL import Image

    for arm in arms:
        run = next((run for run in arm.runs if (run.directory / "samples.png").exists()), None)
        if run is None:
            continue
        with Image.open(run.directory / "samples.png") as image:
            kept = image.convert("RGB")
        if kept.width > WIDEST:
            kept = kept.resize((WIDEST, round(kept.height * WIDEST / kept.width)))
        content = BytesIO()
        kept.save(content, format="PNG", optimize=True)
        seed = run.manifest["seed"]
        alt = f"What the model drew at the end of {arm.task} with {arm.label}, seed {seed}"
        yield Picture(_inline("png", content), alt, f"{arm.label}, seed {seed}", kept.width, kept.height)


def printed(arms: Sequence[Arm], wanted: dict[str, str]) -> Iterator[Picture]:
    """The wanted figures of the arms of one task, as SVG; without those that there are no data for."""
    for name, caption in wanted.items():
        content = BytesIO()
        try:
            with styled():
                figure = figures.PER_TASK[name](arms, replace(DEFAULT, every=tuple(arms)))
                save(figure, content, "svg")
        except NoData:
            continue
        width, height = (round(96 * inches) for inches in figure.get_size_inches())
        where = f"{arms[0].task}, {arms[0].model}"
        title = re.sub(r"[^A-Za-z0-9]+", " ", name)
        yield Picture(_inline("svg+xml", content), f"{title}, {where}", caption, width, height)


def _inline(kind: str, content: BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
