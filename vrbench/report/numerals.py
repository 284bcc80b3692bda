"""Numbers as tables write them: how many digits, and what stands beside a mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from vrbench.report.statistics import Interval

Spread = Literal["ci", "sd", "none"]
MOST_DECIMALS = 12


@dataclass(frozen=True)
class Numerals:
    """How a table writes its means: with the 95 % interval, ± s.d., or alone."""

    decimals: int | None = None
    """Digits behind the point; None: four significant ones, or as many as two of the s.d. ask for."""
    spread: Spread = "ci"

    def number(self, value: float) -> str:
        """A number by itself; `nan` where there is none."""
        return f"{value:.4g}" if self.decimals is None else f"{value:.{self.decimals}f}"

    def measured(self, value: float, interval: Interval, deviation: float) -> str:
        """`0.93 [0.91, 0.95]`, `0.930 ± 0.021` or `0.93`; without what is not known."""
        if self.spread == "sd" and math.isfinite(deviation) and math.isfinite(value):
            decimals = _decimals(value, deviation) if self.decimals is None else self.decimals
            return f"{value:.{decimals}f} ± {deviation:.{decimals}f}"
        if self.spread == "ci" and not math.isnan(interval.low):
            return f"{self.number(value)} [{self.number(interval.low)}, {self.number(interval.high)}]"
        return self.number(value)


def _decimals(value: float, deviation: float) -> int:
    """Digits behind the point that show two significant ones of the deviation; four where it is rounding alone."""
    if deviation <= 1e-12 * abs(value):
        return 4
    return min(MOST_DECIMALS, max(0, 1 - math.floor(math.log10(deviation))))


PLAIN = Numerals()


def number(value: float) -> str:
    """Four significant digits; `nan` where there is none."""
    return PLAIN.number(value)


def with_interval(value: float, interval: Interval) -> str:
    """`0.93 [0.91, 0.95]`; without brackets where the interval is not known."""
    return PLAIN.measured(value, interval, math.nan)
