"""How often a verdict is wrong when the tuning is in it, and when one looks again and again: made-up numbers.

    python scripts/simulate_tuning.py              # writes results/simulations/tuning.json and looking.json

Both sides are tuned in every replicate: a random search of eight trials over a made-up space, ranked by one noisy
validation, and eight paired seeds of what it chose. docs/statistics.md reads the figures. Some minutes on one core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from simulate_verdicts import simulate

from vrbench.report import replicates, sequential, statistics
from vrbench.report.compare import judge
from vrbench.report.pairs import Pairs, pair, pair_replicates
from vrbench.report.smallest import Smallest

G = np.random.Generator
LEVEL, SEEDS, TRIALS, TASKS = 1.0, 8, 8, 4
"""A loss of about one; seeds a replicate, trials a search, tasks a table."""
NOISE = 0.01
"""S.d. of a run's noise: what the seed gives both sides, what it gives each, and what a trial is ranked with."""


class Side(NamedTuple):
    """A method as the simulation knows it."""

    curvature: float = 0.1
    """The loss of a configuration at x, drawn from -1 to 1, is curvature · x² above the best."""
    spread: float = 1.0
    """Its runs' noise, in units of the other side's."""
    skew: bool = False
    """Whether that noise is exponential, of mean 0: a few bad runs."""
    dummy: bool = False
    """Whether a second number is searched that does nothing."""
    jump: float = 0.0
    """Two configurations that far apart, of which a search finds either: tunings of two kinds and nothing between."""


def tuned(side: Side, count: int, g: G) -> np.ndarray:
    """The true mean loss of what each of `count` searches chose, above the best possible, shape (count,)."""
    if side.jump:
        return side.jump * g.integers(0, 2, count)
    space = g.uniform(-1, 1, (count, TRIALS, 2 if side.dummy else 1))
    true = side.curvature * space[..., 0] ** 2
    best = np.argmin(true + g.normal(0, NOISE, true.shape), axis=1)
    return np.asarray(np.take_along_axis(true, best[:, None], axis=1)[:, 0])


def runs(side: Side, means: np.ndarray, shared: np.ndarray, g: G) -> np.ndarray:
    """Losses of shape (replicates, seeds)."""
    own = g.exponential(1, shared.shape) - 1 if side.skew else g.normal(0, 1, shared.shape)
    return np.asarray(LEVEL + means[:, None] + shared + NOISE * side.spread * own)


def study(a: Side, b: Side, effect: float, count: int, g: G) -> tuple[Pairs, float, np.ndarray]:
    """One task: its pairs, the true difference of the two configurations (one tuning), and differences by run."""
    shared = g.normal(0, 2 * NOISE, (count, 1)) + g.normal(0, NOISE, (count, SEEDS))
    chosen = [tuned(side, count, g) for side in (a, b)]
    x, y = (runs(side, means, shared, g) for side, means in zip((a, b), chosen, strict=True))
    x = x - effect
    given = float((chosen[0] - chosen[1]).mean()) - effect
    if count == 1:
        return pair(dict(enumerate(x[0])), dict(enumerate(y[0])), "min", Smallest(), "t"), given, x - y
    a_runs, b_runs = ({(r, s): float(v[r, s]) for r in range(count) for s in range(SEEDS)} for v in (x, y))
    return pair_replicates(a_runs, b_runs, "min", Smallest()), given, x - y


def rates(a: Side, b: Side, effect: float, count: int, repeats: int, g: G) -> dict[str, Any]:
    """Shares of single verdicts and of tables, and how often intervals cover the true difference of the methods."""
    truth = -effect
    single: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    family_wise = against_tuning = 0
    covered = {"default": 0, "bootstrap-t": 0, "hierarchical": 0}
    for _ in range(repeats):
        table = [study(a, b, effect, count, g) for _ in range(TASKS)]
        words = [verdict.word for verdict in judge([pairs for pairs, _, _ in table])]
        family_wise += any(word in ("better", "worse") for word in words)
        for pairs, given, differences in table:
            (verdict,) = judge([pairs])
            single[verdict.word] += 1
            tests[verdict.test] += 1
            against_tuning += (verdict.word == "better" and given > 0) or (verdict.word == "worse" and given < 0)
            covered["default"] += pairs.interval.low <= truth <= pairs.interval.high
            if count > 2:
                low, high = statistics.bootstrap_t(differences.mean(axis=1))
                covered["bootstrap-t"] += low <= truth <= high
                low, high = replicates.hierarchical_bootstrap(list(differences), 400)
                covered["hierarchical"] += low <= truth <= high
    total = repeats * TASKS
    return {
        "replicates": count,
        "seeds": SEEDS,
        "effect": effect,
        "truth": truth,
        "comparisons": total,
        "test": tests.most_common(1)[0][0],
        "single": {word: number / total for word, number in sorted(single.items())},
        "single_better_or_worse": (single["better"] + single["worse"]) / total,
        "single_against_the_tuning_at_hand": against_tuning / total,
        "tables_with_better_or_worse": family_wise / repeats,
        "coverage": {name: number / total for name, number in covered.items() if name == "default" or count > 2},
    }


NULLS: dict[str, tuple[Side, Side]] = {
    "the same method, tuned anew": (Side(), Side()),
    "the same with a dummy parameter": (Side(dummy=True), Side()),
    "unequal spread: one side's noise tripled": (Side(spread=3.0), Side()),
    "asymmetric: one side's noise exponential, doubled": (Side(spread=2.0, skew=True), Side()),
    "tuning noise alone: runs vary little": (Side(spread=0.1), Side(spread=0.1)),
    "tunings of two kinds, far apart": (Side(jump=0.1), Side(jump=0.1)),
}
"""Both sides have the same mean over tunings in all of them."""

EFFECTS = (0.005, 0.01, 0.02, 0.04)
COUNTS = (1, 3, 6, 8)


def simulate_tuning(repeats: int, g: G) -> dict[str, Any]:
    """Nulls and effects, for one tuning of each side and for several."""
    rows = []
    for name, (a, b) in NULLS.items():
        for count in COUNTS:
            rows.append({"null": name, **rates(a, b, 0.0, count, repeats, g)})
            show(name, rows[-1])
    power = []
    for effect in EFFECTS:
        for count in (3, 8):
            power.append(
                {"effect_of": "the same method, tuned anew", **rates(Side(), Side(), effect, count, repeats, g)}
            )
            show(f"better by {effect:.1%}", power[-1])
    spread = [study(Side(), Side(), 0.0, 2, g)[2].mean(axis=1)[0] for _ in range(4000)]
    return {"nulls": rows, "power": power, "deviation_of_replicate_differences": float(np.std(spread))}


def show(name: str, row: dict[str, Any]) -> None:
    covers = "  ".join(f"{kind} {share:.1%}" for kind, share in row["coverage"].items())
    click.echo(
        f"{name:50} R={row['replicates']} {row['test']:9} single {row['single_better_or_worse']:.1%} "
        f"(against the tuning {row['single_against_the_tuning_at_hand']:.1%}) "
        f"tables {row['tables_with_better_or_worse']:.1%} equivalent {row['single'].get('equivalent', 0):.1%}; {covers}"
    )


# ---- looking again and again ----------------------------------------------------------------------------------------

DRAWS: dict[str, Callable[[G, tuple[int, int]], np.ndarray]] = {
    "normal": lambda g, shape: g.normal(size=shape),
    "heavy tails: t with 3 degrees": lambda g, shape: g.standard_t(3, shape),
    "two values, ±1": lambda g, shape: g.integers(0, 2, shape) * 2.0 - 1.0,
    "spread grows from unit to unit": lambda g, shape: g.normal(size=shape) * np.arange(1, shape[1] + 1),
    "a tenth infinite (diverged), either side": lambda g, shape: np.where(
        g.random(shape) < 0.1, np.inf * (g.integers(0, 2, shape) * 2.0 - 1.0), g.normal(size=shape)
    ),
    "asymmetric: exponential, mean 0": lambda g, shape: g.exponential(size=shape) - 1,
    "asymmetric: exponential less a normal one": lambda g, shape: (
        g.exponential(size=shape) - 1 + 0.5 * g.normal(size=shape)
    ),
}
"""A unit's difference where there is none: symmetric, but for the last two, whose mean alone is 0."""
LONGEST = 64


def simulate_looking(repeats: int, g: G) -> dict[str, Any]:
    """Looking after every unit up to 64: how often each test ever says that there is a difference; and its power."""
    rows = []
    for name, draw in DRAWS.items():
        paths = draw(g, (2 * repeats, LONGEST))
        crossed = [bool((sequential.e_process(path) > 1 / statistics.ALPHA).any()) for path in paths]
        some = paths[: repeats // 4]
        peeked = [any(statistics.sign_flip(path[:n]) < statistics.ALPHA for n in range(6, 17)) for path in some]
        rows.append({"difference": name, "paths": len(paths), "e_process_to_64": float(np.mean(crossed)),
                     "sign_flip_6_to_16": float(np.mean(peeked))})  # fmt: skip
        click.echo(f"{name:45} ever: e-process {rows[-1]['e_process_to_64']:.1%}, sign-flip {np.mean(peeked):.1%}")
    both = []
    for name in ("normal", "heavy tails: t with 3 degrees"):
        paths = DRAWS[name](g, (2 * repeats, LONGEST))
        evidence = np.array([sequential.e_process(path) for path in paths])
        for first in (6, 8, 12):
            ordinary = np.array([statistics.sign_flip(path[:first]) < statistics.ALPHA for path in paths])
            ever = ordinary | (evidence[:, first:] > 1 / statistics.ALPHA).any(axis=1)
            both.append({"difference": name, "first_look": first, "paths": len(paths),
                         "sign_flip": float(ordinary.mean()), "then_e_process": float(ever.mean())})  # fmt: skip
            click.echo(f"{name:45} sign-flip at {first}: {ordinary.mean():.1%}, then e-process: {ever.mean():.1%}")
    power = []
    for effect, n in ((1.0, 8), (1.0, 16), (2.0, 6), (2.0, 8), (2.0, 12), (0.5, 64)):
        paths = g.normal(effect, 1, (repeats, n))
        anytime = np.mean([sequential.anytime_p(path) < statistics.ALPHA for path in paths])
        fixed = np.mean([statistics.sign_flip(path) < statistics.ALPHA for path in paths[: repeats // 2]])
        power.append({"effect_in_sd": effect, "n": n, "e_process": float(anytime), "sign_flip": float(fixed)})
        click.echo(f"{effect} s.d., n={n}: e-process {anytime:.1%}, sign-flip {fixed:.1%}")
    covers = []
    for n in (8, 16):
        paths = g.normal(size=(repeats // 2, n))
        bounds = np.array([sequential.anytime_interval(path) for path in paths])
        covers.append({"n": n, "coverage": float(np.mean((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0))),
                       "width_in_sd": float(np.median(bounds[:, 1] - bounds[:, 0]))})  # fmt: skip
        click.echo(
            f"anytime interval, n={n}: covers {covers[-1]['coverage']:.1%}, {covers[-1]['width_in_sd']:.2f} s.d."
        )
    return {"looking": rows, "ordinary_first": both, "power": power, "interval": covers}


PARTS = {"tuning": simulate_tuning, "looking": simulate_looking}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--repeats", default=500, show_default=True, help="Tables a scenario, and paths.")
@click.option("--seed", default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("results/simulations"), show_default=True)
def main(parts: tuple[str, ...], repeats: int, seed: int, output: Path) -> None:
    """Simulate, print and write: both parts, or those named."""
    simulate(PARTS, parts, repeats, seed, output)


if __name__ == "__main__":
    main()
