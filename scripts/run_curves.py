"""What one run logged over its steps, with the rate that the authors' script would have logged of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from vrbench.report.eos_figure import curve
from vrbench.runs.records import Run


@dataclass(frozen=True)
class RunCurves:
    """The curves of a run, by metric: its logged ones, and the two of `with_shares`."""

    run: Run

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        config = yaml.safe_load((self.run.directory / "config.yaml").read_text(encoding="utf-8"))
        return with_shares(list(self.run.rows()), config["optimizer"])

    @property
    def optimizer(self) -> str:
        """The name of its optimizer's YAML."""
        return str(self.run.manifest["choices"]["optimizer"])

    def of(self, key: str) -> dict[int, float]:
        """A metric's finite values by step; empty where none was logged."""
        return dict(zip(*curve(self._rows, key), strict=True))

    def last_third(self, key: str) -> list[float]:
        """The values of the last third of a metric's measurements."""
        values = list(self.of(key).values())
        return values[len(values) - math.ceil(len(values) / 3) :]


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
