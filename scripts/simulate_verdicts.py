"""How often intervals cover the truth, and how often a verdict is wrong, on made-up numbers whose truth is known.

    python scripts/simulate_verdicts.py            # writes results/simulations/intervals.json and verdicts.json

docs/statistics.md reads the figures. Scipy and numpy only; about ten minutes on one core.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import scipy

from vrbench.report import statistics
from vrbench.report.compare import judge
from vrbench.report.pairs import Pairs, pair
from vrbench.report.smallest import Smallest
from vrbench.runs import records

Part = Callable[[int, np.random.Generator], dict[str, Any]]
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

ONE_ARM: dict[str, tuple[Draw, float]] = {
    "normal": (lambda g, shape: g.normal(size=shape), 0.0),
    "skewed: lognormal, sigma 0.5": (lambda g, shape: g.lognormal(0, 0.5, shape), math.exp(0.125)),
    "skewed: exponential": (lambda g, shape: g.exponential(size=shape), 1.0),
    "bounded: beta(8, 2)": (lambda g, shape: g.beta(8, 2, shape), 0.8),
    "bounded at the edge: beta(20, 1)": (lambda g, shape: g.beta(20, 1, shape), 20 / 21),
    "accuracy of 97 % on 360 examples": (lambda g, shape: g.binomial(360, 0.97, shape) / 360, 0.97),
    "heavy tails: t with 3 degrees": (lambda g, shape: g.standard_t(3, shape), 0.0),
}
"""What a seed's number may look like, and its true mean."""

DIFFERENCES: dict[str, tuple[Draw, float]] = {
    "difference of two exponentials": (lambda g, s: g.exponential(size=s) - g.exponential(size=s), 0.0),
    "exponential less half an exponential": (lambda g, s: g.exponential(size=s) - 0.5 * g.exponential(size=s), 0.5),
}

NOISE: dict[str, Draw] = {
    "normal": lambda g, shape: g.normal(0, 0.01, shape),
    "skewed": lambda g, shape: 0.01 * (g.exponential(size=shape) - 1),
    "accuracy on 360 examples": lambda g, shape: g.binomial(360, 0.9, shape) / 360 - 0.9,
    "heavy tails": lambda g, shape: 0.006 * g.standard_t(3, shape),
}
"""The four tasks of a made-up table: what each arm adds to 0.9 and to the noise that the seed gives both."""


def coverage(draw: Draw, truth: float, n: int, repeats: int, g: np.random.Generator) -> dict[str, Any]:
    """The share of samples of n whose interval covers the truth, and the median width, for each kind of interval."""
    samples = draw(g, (repeats, n))
    found: dict[str, Any] = {}
    for name, interval in statistics.INTERVALS.items():
        bounds = np.array([interval(sample) for sample in samples])
        covered = (bounds[:, 0] <= truth) & (truth <= bounds[:, 1])
        found[name] = {"coverage": float(covered.mean()), "width": float(np.median(bounds[:, 1] - bounds[:, 0]))}
    return found


def improvement_coverage(probability: float, n: int, repeats: int, g: np.random.Generator) -> float:
    """How often Wilson's interval covers the probability of improvement."""
    wins = g.random((repeats, n)) < probability
    bounds = [statistics.probability_of_improvement(np.where(row, 1.0, -1.0)) for row in wins]
    return float(np.mean([low <= probability <= high for _, low, high in bounds]))


def a_table(n: int, effect: float, diverging: float, g: np.random.Generator) -> list[Pairs]:
    """Four tasks of n paired seeds; A is better by `effect`, and each run diverges with that probability."""
    family = []
    for noise in NOISE.values():
        shared = g.normal(0, 0.01, n)
        a, b = (0.9 + gain + shared + noise(g, (n,)) for gain in (effect, 0.0))
        for values in (a, b):
            values[g.random(n) < diverging] = math.nan
        family.append(pair(dict(enumerate(a)), dict(enumerate(b)), "max", Smallest()))
    return family


def verdicts(n: int, effect: float, diverging: float, repeats: int, g: np.random.Generator) -> dict[str, Any]:
    """Shares of verdicts over all comparisons, and of tables in which any is better or worse."""
    counts: Counter[str] = Counter()
    claims = covered = intervals = 0
    for _ in range(repeats):
        family = a_table(n, effect, diverging, g)
        words = [verdict.word for verdict in judge(family)]
        counts.update(words)
        claims += any(word in ("better", "worse") for word in words)
        for pairs in family:
            intervals += 1
            covered += pairs.interval.low <= effect <= pairs.interval.high
    return {
        "n": n,
        "effect": effect,
        "diverging": diverging,
        "tables": repeats,
        "comparisons": {word: count / intervals for word, count in sorted(counts.items())},
        "tables_with_better_or_worse": claims / repeats,
        "difference_interval_coverage": covered / intervals,
    }


def provenance(repeats: int, seed: int, started: float) -> dict[str, Any]:
    versions = {"numpy": np.__version__, "scipy": scipy.__version__, **records.versions()}
    return {
        "schema": 1,
        **records.git_state(Path(records.__file__).parent),
        "versions": versions,
        "command": " ".join(["python", f"scripts/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "repeats": repeats,
        "seed": seed,
        "resamples": statistics.RESAMPLES,
        "seconds": round(time.process_time() - started, 1),
    }


SCENARIOS = (
    ("null", 8, 0.0, 0.0),
    ("null", 16, 0.0, 0.0),
    ("null, a tenth of the runs diverges", 8, 0.0, 0.1),
    ("null, a tenth of the runs diverges", 16, 0.0, 0.1),
    ("A better by the smallest effect", 16, 0.009, 0.0),
    ("A better by 3 %", 8, 0.027, 0.0),
    ("A better by 3 %", 16, 0.027, 0.0),
    ("A worse by 3 %", 8, -0.027, 0.0),
)
"""Name, seeds, effect, probability of divergence."""


def simulate_intervals(repeats: int, g: np.random.Generator) -> dict[str, Any]:
    """Coverage of every kind of interval of a mean, and of Wilson's for the probability of improvement."""
    rows = []
    for name, (draw, truth) in {**ONE_ARM, **DIFFERENCES}.items():
        for n in (8, 16, 32):
            rows.append({"numbers": name, "n": n, **coverage(draw, truth, n, repeats, g)})
            shown = "  ".join(f"{kind} {rows[-1][kind]['coverage']:.1%}" for kind in statistics.INTERVALS)
            click.echo(f"{name:40} n={n:<3} {shown}")
    wilson = []
    for p in (0.5, 0.7, 0.9):
        for n in (8, 16, 32):
            wilson.append({"probability": p, "n": n, "coverage": improvement_coverage(p, n, 10 * repeats, g)})
            click.echo(f"Wilson, P = {p}: n={n} {wilson[-1]['coverage']:.1%}")
    return {"mean": rows, "probability_of_improvement": wilson}


def simulate_verdicts(repeats: int, g: np.random.Generator) -> dict[str, Any]:
    """What tables say, where nothing is different and where something is."""
    rows = []
    for name, n, effect, diverging in SCENARIOS:
        rows.append({"scenario": name, **verdicts(n, effect, diverging, repeats, g)})
        shown = "  ".join(f"{word} {share:.1%}" for word, share in rows[-1]["comparisons"].items())
        claims = rows[-1]["tables_with_better_or_worse"]
        click.echo(f"{name:40} n={n:<3} {shown}; tables with better or worse {claims:.1%}")
    return {"scenarios": rows}


PARTS = {"intervals": simulate_intervals, "verdicts": simulate_verdicts}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--repeats", default=1000, show_default=True, help="Samples a cell, and tables a scenario.")
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/simulations"), show_default=True)
def main(parts: tuple[str, ...], repeats: int, seed: int, output: Path) -> None:
    """Simulate, print and write: both parts, or those named."""
    simulate(PARTS, parts, repeats, seed, output)


def simulate(known: Mapping[str, Part], named: Sequence[str], repeats: int, seed: int, output: Path) -> None:
    """Run the parts that are named, or all, each from the same seed, and write what each found."""
    output.mkdir(parents=True, exist_ok=True)
    for part in named or known:
        started = time.process_time()
        found = known[part](repeats, np.random.default_rng(seed))
        records.write_json(output / f"{part}.json", {**provenance(repeats, seed, started), **found})


if __name__ == "__main__":
    main()
