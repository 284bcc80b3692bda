"""Figures of any number of runs, in one style: PNG for screens, SVG and PDF for papers.

Each function takes arms and a view and returns a matplotlib Figure, or raises NoData with the reason in a few words;
`write` saves what there is and says why the rest is not there.
"""

from __future__ import annotations

import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from vrbench.report import eos_figure, forest, lines, paired_figure
from vrbench.report.arms import Arm
from vrbench.report.cost_figure import cost
from vrbench.report.curves import groups, leading, representative
from vrbench.report.heat_maps import alpha1_heat_map, beta3_heat_map
from vrbench.report.looks import Looks
from vrbench.report.rivals import Rival, rivals
from vrbench.report.search_figures import lr_sensitivity, tuning_budget
from vrbench.report.statistics import performance_profile as profile_of
from vrbench.report.statistics import time_to_target as reached
from vrbench.report.style import UNDATED, NoData, headline, legend_below, logarithmic, looks, panels, save, styled
from vrbench.report.view import DEFAULT, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ARMS = 8
"""Configurations of one optimizer that are compared with each other, where there is no other optimizer."""
MOST_LINES = 12
"""Lines in one panel: more cannot be told apart. Arms that are asked for are all drawn."""
MOST_FACTOR = 100
"""Costs so many times the best one's are outside of the performance profile."""
ARROWS = {"min": "↓", "max": "↑"}
RATES = {"optim/effective_lr": "effective lr", "optim/gate": "gate", "optim/velocity_sq": "velocity²"}


def write(arms: Sequence[Arm], output: Path, view: View = DEFAULT, kinds: Collection[str] = ()) -> list[Path]:
    """Save every figure that the arms have data for below `output`, as PNG, SVG and PDF, and return the files.

    `kinds` are those of `KINDS` that are wanted; empty: all. A figure without data is not written, and one line on the
    console says why. Raises OSError where `output` cannot be written, ValueError for a view of what is not there.
    """
    view = replace(view.checked(arms), every=tuple(arms))
    output.mkdir(parents=True, exist_ok=True)
    written, missing = [], defaultdict[str, list[str]](list)
    for name, of, make in _wanted(arms, view, kinds):
        try:
            with styled():
                figure = make()
                for kind in UNDATED:
                    path = output / f"{_file(name, of)}.{kind}"
                    save(figure, path, kind)
                    written.append(path)
        except NoData as reason:
            missing[f"{name}: {reason}"].append(of)
    for line, of_these in missing.items():
        of_what = f" ({'; '.join(of_these)})" if any(of_these) else ""
        print(f"vrbench-report: no figure {line}{of_what}", file=sys.stderr)
    return written


def drawn(arms: Sequence[Arm], kind: str, view: View = DEFAULT) -> list[Figure]:
    """The figures of one kind. Raises ValueError for a kind that there is not, and where there are no data for it."""
    if kind not in KINDS:
        raise ValueError(f"{kind}: no such figure; there are {', '.join(KINDS)}")
    view = replace(view.checked(arms), every=tuple(arms))
    made, missing = [], []
    for _, _, make in _wanted(arms, view, [kind]):
        try:
            with styled():
                made.append(make())
        except NoData as reason:
            missing.append(str(reason))
    if not made:
        raise ValueError(f"no figure {kind}: {'; '.join(dict.fromkeys(missing)) or 'no run has data for it'}")
    return made


def _wanted(arms: Sequence[Arm], view: View, kinds: Collection[str]) -> Iterator[tuple[str, str, Callable[[], Figure]]]:
    """Name of each figure, what it is of, and its maker: comparisons first."""
    wanted = kinds or KINDS

    @cache
    def compared() -> list[Rival]:
        """What is shown decides no verdict: all comparisons are one family."""
        if view.metric:
            raise NoData("verdicts are of each task's primary metric, and of no other")
        return rivals(arms, MOST_ARMS, Looks(), "figure")

    for name, compare in OF_COMPARISONS.items():
        if name in wanted:
            yield name, "", lambda compare=compare: compare(compared(), view)  # type: ignore[misc]
    measured = view.measured(arms)
    for (task, model), all_own in groups(measured).items():
        own = [arm for arm in all_own if view.shows(arm)]
        for name, draw in PER_TASK.items() if own else ():
            if name in wanted:
                yield name, f"{task} {model}", partial(draw, own, view)
        drawn = shown(own, view) if "eos" in wanted else []
        for arm in [arm for arm in drawn if eos_figure.measured(arm)] or drawn[:1]:
            yield "eos", f"{task} {model} {arm.label}", partial(eos_figure.figure, arm, view)
    if "performance-profile" in wanted:
        yield "performance-profile", "", partial(performance_profile, measured, view)


def _file(name: str, of: str) -> str:
    """A file name of plain letters."""
    return "-".join(re.sub(r"[^A-Za-z0-9._=]+", "-", part).strip("-") for part in (name, of) if part)


def shown(arms: Sequence[Arm], view: View) -> list[Arm]:
    """The arms of one task that are drawn: those that were asked for, else the best of each optimizer first."""
    return list(arms) if view.only else representative(arms, MOST_LINES)


# ---- over steps and time --------------------------------------------------------------------------------------------


def learning_curves(arms: Sequence[Arm], view: View = DEFAULT, along: lines.Over = "step") -> Figure:
    """Training loss, validation loss and the primary metric of one task over the steps: means and 95 % intervals.

    Where the view asks for a metric, that one alone, of the training batches and of validation.
    """
    first, drawn = arms[0], shown(arms, view)
    keys = [f"train/{first.metric}"] if view.metric else ["train/loss", "val/loss"]
    named = {key: _named(key, first) for key in dict.fromkeys([*keys, f"val/{first.metric}"])}
    return lines.over(drawn, named, view, _headline(arms, drawn), along)


def curves_over_time(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """The same over training seconds; evaluation and probes are off the clock."""
    if not any(lines.curve(arm, "time/steps_per_s") for arm in arms):
        raise NoData("no run's rows have their time")
    return learning_curves(arms, view, "seconds")


def rates(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """The effective rate, and gate and velocity² of the optimizers that have them, over the steps."""
    drawn = shown(arms, view)
    return lines.over(drawn, RATES, view, _headline(arms, drawn))


def eos_ratios(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """Sharpness over threshold of all arms that were measured: means over seeds; the dashed line is the edge."""
    drawn = [arm for arm in shown(arms, view) if eos_figure.measured(arm)]
    if not drawn:
        raise NoData("no run has eos/ metrics; train with probe=eos")
    title = f"{_headline(arms, drawn)} (dashed: the edge of stability)"
    return lines.over(drawn, {"eos/ratio": "sharpness / threshold"}, view, title, rules={"eos/ratio": 1.0})


def _named(key: str, arm: Arm) -> str:
    split, metric = key.split("/", 1)
    arrow = f" {ARROWS[arm.direction]}" if metric == arm.metric else ""
    return f"{'training' if split == 'train' else 'validation'} {metric.replace('_', ' ')}{arrow}"


def _headline(arms: Sequence[Arm], drawn: Sequence[Arm]) -> str:
    title = f"{arms[0].task}, {arms[0].model}"
    return title if len(drawn) == len(arms) else f"{title}: the best {len(drawn)} of {len(arms)} by validation"


# ---- targets and costs ----------------------------------------------------------------------------------------------


def target_of(arms: Sequence[Arm]) -> float:
    """The validation that half of all runs of these arms reach, diverged ones counted as never: a target for all alike.

    Raises NoData where fewer than half of the runs have a best validation.
    """
    values = [value for arm in arms for value in arm.by_seed(f"best/val/{arm.metric}").values()]
    ranked = sorted((value for value in values if math.isfinite(value)), reverse=arms[0].direction == "max")
    half = (len(values) + 1) // 2
    if not values or len(ranked) < half:
        raise NoData("fewer than half of the runs have a validation")
    return ranked[half - 1]


def time_to_target(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """Share of an arm's runs that have reached the target, over training seconds (evaluation is off the clock)."""
    first, drawn = arms[0], shown(arms, view)
    target, key = target_of(drawn), f"val/{first.metric}"
    style, names = view.looks(arms), {arm.label: view.described(arm) for arm in drawn}
    figure, (axis,) = panels(1, height=2.6, width=5.5, size=view.size)
    times = {
        arm.label: sorted(reached(list(run.rows()), key, target, first.direction).seconds for run in arm.over)
        for arm in drawn
    }
    end = max((time for own in times.values() for time in own if math.isfinite(time)), default=0.0)
    if end == 0:
        raise NoData("no run's rows have the time at which it reached the target")
    for label, own in times.items():
        there = [time for time in own if math.isfinite(time)]
        x = [0.0, *there, 1.05 * end]
        y = [share / len(own) for share in [*range(len(there) + 1), len(there)]] if own else [0.0] * len(x)
        look = style[label]
        axis.step(x, y, where="post", **look.line, marker=look.marker, markevery=range(1, len(there) + 1),
                  label=names[label])  # fmt: skip
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlim(0, 1.05 * end)
    axis.set_xlabel("training time (s)")
    axis.set_ylabel("share of runs at the target")
    sign = "≥" if first.direction == "max" else "≤"
    target_is = f"time to validation {first.metric.replace('_', ' ')} {sign} {target:.4g}, which half of all runs reach"
    headline(figure, f"{_headline(arms, drawn)}; {target_is}")
    counts = sorted({len(own) for own in times.values()})
    legend_below(figure, [axis], view.size, f"{'–'.join(map(str, dict.fromkeys([counts[0], counts[-1]])))} runs each")
    return figure


def performance_profile(arms: Sequence[Arm], view: View = DEFAULT) -> Figure:
    """Share of runs whose cost on test is within a factor of the best, over all tasks alike, with 95 % bands.

    Each task's best arm of an optimizer speaks for it (`curves.leading`). The factor is the value over the best
    optimizer's mean where less is better, and the reverse where more is; a diverged run has none (Dolan and Moré 2002;
    arXiv 2108.13264). Tasks with a value that is not positive are left out.
    """
    import numpy as np

    factors: dict[str, list[list[float]]] = {}
    tasks = 0
    for own in groups([arm for arm in arms if view.shows(arm)]).values():
        by_seed = {name: arm.by_seed(f"test/{arm.metric}") for name, arm in leading(own).items()}
        values = {name: list(found.values()) for name, found in by_seed.items() if found}
        means = [sum(one) / len(one) for one in values.values() if one and all(map(math.isfinite, one))]
        if (
            len(values) < 2
            or not means
            or not all(value > 0 or math.isnan(value) for v in values.values() for value in v)
        ):
            continue
        tasks += 1
        more = own[0].direction == "max"
        top = max(means) if more else min(means)
        for name, one in values.items():
            factors.setdefault(name, []).append([top / value if more else value / top for value in one])
    if tasks < 2:
        raise NoData("it takes two tasks, each with a positive test metric of two optimizers")
    style = looks((name, name) for name in factors)
    figure, (axis,) = panels(1, height=2.6, width=5.5, size=view.size)
    finite = [factor for per_task in factors.values() for one in per_task for factor in one if math.isfinite(factor)]
    ratios = np.geomspace(min(finite), 1.05 * min(MOST_FACTOR, max(finite)), 60)
    for name, per_task in factors.items():
        share, low, high = profile_of([-np.array(one) for one in per_task], -ratios)
        look = style[name]
        missing = f" ({len(per_task)} of the tasks)" if len(per_task) < tasks else ""
        label = f"{view.named(name, arms)}{missing}"
        axis.plot(ratios, share, **look.line, marker=look.marker, markevery=8, label=label)
        axis.fill_between(ratios, low, high, color=look.color, alpha=0.15, linewidth=0)
    logarithmic(axis, "x", ratios)
    axis.set_ylim(-0.03, 1.03)
    axis.set_xlabel("cost on test ÷ the best optimizer's mean cost")
    axis.set_ylabel("share of runs within")
    headline(figure, f"{tasks} tasks, each of equal weight")
    many = sorted({len(one) for per_task in factors.values() for one in per_task})
    of = f"{many[0]}" if len(many) == 1 else f"{many[0]} to {many[-1]}"
    legend_below(
        figure, [axis], view.size, f"{of} runs a task; band: 95 % interval by a bootstrap of runs within tasks"
    )
    return figure


OF_COMPARISONS: dict[str, Callable[[Sequence[Rival], View], Figure]] = {
    "forest": forest.figure,
    "paired": paired_figure.figure,
}
"""Figures of every comparison of a study, and of the tasks' primary metrics."""
PER_TASK: dict[str, Callable[[Sequence[Arm], View], Figure]] = {
    "curves": learning_curves,
    "curves-time": curves_over_time,
    "rates": rates,
    "time-to-target": time_to_target,
    "lr-sensitivity": lr_sensitivity,
    "tuning-budget": tuning_budget,
    "beta3-lr": beta3_heat_map,
    "alpha1-lr": alpha1_heat_map,
    "cost": cost,
    "eos-ratio": eos_ratios,
}
"""Figures that are drawn once for each task and model."""
KINDS = (*OF_COMPARISONS, *PER_TASK, "eos", "performance-profile")
"""All kinds of figures; `eos` is drawn once for each arm."""
