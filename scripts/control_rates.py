"""How often an optimizer "differs" from itself, tuned again: from a published study of many tunings with a control.

    vrbench-report publish results/runs/digits_control -o results/digits_control
    python scripts/control_rates.py results/digits_control        # writes rates.json there

Pair k is the baseline's tuning k against its control's tuning k, on the same confirmation seeds. `single` is what a
study of one tuning each would say: the sign-flip test over the seeds of a pair, for each pair. `replicates` is what a
study of R tunings each would say, by the report's own test: over subsets of R pairs, drawn at random; its standard
error is the jackknife's over pairs, since subsets overlap. The same for each rival, where "better" and "worse" may be
right. All at a nominal 5 %, one comparison in the family.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from vrbench.report import statistics
from vrbench.report.arms import Arm
from vrbench.report.collect import collect
from vrbench.report.compare import values
from vrbench.report.replicates import t_test
from vrbench.runs import archive
from vrbench.runs.records import write_json

SIZES = (3, 4, 8, 16)
DRAWS = 4000


def gains(a: Arm, b: Arm) -> dict[int, list[float]]:
    """By tuning, the differences A - B of the seeds that both have, with the sign of an improvement."""
    x, y = values(a, "test"), values(b, "test")
    sign = 1.0 if a.direction == "max" else -1.0
    found: dict[int, list[float]] = {}
    for key in sorted(x.keys() & y.keys()):
        if math.isfinite(x[key]) and math.isfinite(y[key]):
            found.setdefault(key[0], []).append(sign * (x[key] - y[key]))
    return found


def test_of(units: Sequence[float]) -> float:
    """The p value that the report's test has for these replicates."""
    return t_test(units) if len(units) < statistics.least_pairs(1) else statistics.sign_flip(units)


def rates(units: Sequence[float], size: int, random: np.random.Generator) -> dict[str, float]:
    """The share of subsets of so many replicates that are called different, with a jackknife standard error."""
    picks = [random.choice(len(units), size, replace=False) for _ in range(DRAWS)]
    called = np.array([test_of([units[i] for i in pick]) < 0.05 for pick in picks])
    without = [called[[k not in pick for pick in picks]].mean() for k in range(len(units))]
    n = len(units)
    error = math.sqrt((n - 1) / n * float(((np.array(without) - np.mean(without)) ** 2).sum()))
    return {"share": float(called.mean()), "standard_error": error}


def judged(own: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """The rates of one comparison."""
    single = [(statistics.sign_flip(one), float(np.mean(one))) for one in own.values()]
    different = sum(p < 0.05 for p, _ in single)
    low, high = stats.binomtest(different, len(single)).proportion_ci(method="exact")
    units = [float(np.mean(one)) for one in own.values()]
    random = np.random.default_rng(0)
    return {
        "pairs": len(units),
        "single": {
            "different": different,
            "better": sum(p < 0.05 and mean > 0 for p, mean in single),
            "worse": sum(p < 0.05 and mean < 0 for p, mean in single),
            "exact_95": [low, high],
        },
        "replicates": {str(size): rates(units, size, random) for size in SIZES if size < len(units)},
        "all": {"mean": float(np.mean(units)), "deviation": float(np.std(units, ddof=1)), "p": test_of(units)},
    }


def main() -> None:
    """Read a published study and write rates.json beside its records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--baseline", default="adamw")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        archive.unpack(options.folder / archive.FILE, Path(temporary) / "study")
        arms = collect([Path(temporary) / "study/confirm"])
        (base,) = [arm for arm in arms if arm.optimizer == options.baseline and not arm.control]
        found = {
            f"{arm.optimizer}{' tuned again' if arm.control else ''}": judged(gains(arm, base))
            for arm in arms
            if arm is not base
        }
    write_json(options.folder / "rates.json", {"baseline": options.baseline, "draws": DRAWS, "against": found})
    for name, one in found.items():
        print(name, one["single"], one["replicates"], one["all"])


if __name__ == "__main__":
    main()
