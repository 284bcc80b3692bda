"""The paper's Table 1, Table 4 and Figure 2 beside what these runs gave; the published figures are in published.yaml.

A published figure and ours are comparable only where task, model and length are the paper's. What can be asked of a
stand-in is the paper's claim, "VRAdam's loss is the lower one", by the same paired test as every other comparison:

- *same direction*: our verdict is *better* (where data or model are not the paper's, a stand-in reproduces nothing);
- *not the same direction*: *worse*, or *equivalent*;
- *nothing can be said*: too little data, and the seeds that are missing; or the two differ in more than the optimizer.

A verdict is about one tuning of each side (docs/statistics.md).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from vrbench.report import cautions, statistics
from vrbench.report.arms import Arm
from vrbench.report.compare import Comparison, Verdict, compare
from vrbench.report.curves import columns, groups
from vrbench.report.formats import Table, markdown
from vrbench.report.leaves import canonical, covers, plain
from vrbench.report.numerals import number, with_interval
from vrbench.report.smallest import Smallest
from vrbench.runs.records import write_whole

OURS = "vradam"
SAME, OTHER = "same direction", "not the same direction"
NEAR = 0.9
"""A gate above this share of the largest rate is near it."""


def published() -> dict[str, Any]:
    """The published figures."""
    text = resources.files("vrbench.report").joinpath("published.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def write(arms: Sequence[Arm], output: Path) -> Path:
    """Write the comparison as Markdown and return its path. Raises OSError, and ValueError where no run answers."""
    print_of = published()
    parts = [*_table1(arms, print_of), *_table4(arms, print_of["table4"]), *_figure2(arms, print_of["figure2"])]
    if not parts:
        raise ValueError("none of these runs answers to the paper's Table 1, Table 4 or Figure 2")
    text = "\n".join(
        ["# The paper's figures beside these runs", "", (__doc__ or "").split("\n", 2)[2].strip(), "", *parts]
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, lambda file: file.write(text.encode()))
    return output


def answer(verdict: Verdict) -> str:
    """What a verdict on "VRAdam is better" says of the paper's claim."""
    said = {"better": SAME, "worse": OTHER, "equivalent": OTHER}.get(verdict.word, "nothing can be said")
    return f"{said}: {verdict}"


# ---- Table 1 --------------------------------------------------------------------------------------------------------


def _table1(arms: Sequence[Arm], print_of: Mapping[str, Any]) -> Iterator[str]:
    names = print_of["optimizers"]
    asked_of = [
        (row, group)
        for row in print_of["table1"]
        for task, metric in row["stand_ins"].items()
        for group in _by_model(arms, task, metric, names)
        if OURS in group and len(group) > 1
    ]
    found: list[dict[str, Comparison]] = [{} for _ in asked_of]
    for rival in names:  # one question a rival: its tasks are one family, which eight seeds can answer
        asked = [place for place, (_, group) in enumerate(asked_of) if rival in group and rival != OURS]
        couples = [(asked_of[place][1][OURS], asked_of[place][1][rival]) for place in asked]
        for place, one in zip(asked, compare(couples, "test", Smallest()), strict=True):
            found[place][rival] = one
    for (row, _), comparisons in zip(asked_of, found, strict=True):
        yield _row_of_table1(row, names, list(comparisons.values()))


def _by_model(arms: Sequence[Arm], task: str, metric: str, optimizers: Mapping[str, str]) -> Iterator[dict[str, Arm]]:
    """The arms of a task, one an optimizer, by model: its only one, or the only one without settings of its own.

    An optimizer with several is left out, and a line says so.
    """
    models: dict[str, dict[str, list[Arm]]] = {}
    for arm in arms:
        if arm.task == task and arm.optimizer in optimizers:
            same = replace(arm, metric=metric, direction="min")
            models.setdefault(arm.model, {}).setdefault(arm.optimizer, []).append(same)
    for by_optimizer in models.values():
        stands = {name: [arm for arm in same if not _own(arm)] or same for name, same in by_optimizer.items()}
        for several in stands.values():
            if len(several) > 1:
                names = "; ".join(arm.name for arm in several)
                print(f"vrbench: table 1: left out, because one of them must stand for all: {names}", file=sys.stderr)
        yield {optimizer: same[0] for optimizer, same in stands.items() if len(same) == 1}


def _own(arm: Arm) -> dict[str, str]:
    """The optimizer's settings among those that tell the arm from others, without what its searches chose."""
    return {key: value for key, value in arm.unsearched.items() if covers("optimizer", key)}


def _row_of_table1(row: Mapping[str, Any], names: Mapping[str, str], found: Sequence[Comparison]) -> str:
    ours = found[0].a
    cells = [[names[OURS], _printed(row, OURS), *_measured(ours), "", ""]]
    for one in found:
        rival = one.b.optimizer
        cells.append([names[rival], _printed(row, rival), *_measured(one.b), *_answered(one)])
    headings = ["optimizer", "published val / test", f"here, test {ours.metric}", "n (diverged)",
                f"{names[OURS]} − it", f"claim: {names[OURS]} is lower"]  # fmt: skip
    notes = [
        _comparability(ours, row["same"]) + f" Of the published row: {row['caveat']}.",
        "Mean [95 % bootstrap-t interval]; paired sign-flip tests, Holm-corrected over the tasks of each rival; a "
        "diverged run counts as the worst.",
        *_notes(found),
    ]
    title = f"## Table 1, {row['row']}: {ours.task}, {ours.model}\n"
    return f"{title}\n{markdown(Table(headings, cells, [], notes))}"


def _comparability(arm: Arm, same: Mapping[str, Any]) -> str:
    if (arm.task, arm.model) != (same["task"], same["model"]):
        return (
            f"The figures are not comparable: {arm.task} with {arm.model} stands in for {same['task']} with "
            f"{same['model']}. Only the claim can be asked of it."
        )
    other = [
        f"{key}={plain(arm.identity[key])} for {plain(size)}"
        for key, size in same["sizes"].items()
        if key in arm.identity and canonical(arm.identity[key]) != canonical(size)
    ]
    if other:
        return (
            "The figures are not comparable: task and model are the paper's, but not their size "
            f"({', '.join(other)}). Only the claim can be asked of it."
        )
    return "Data, model and length are of the paper's size."


def _printed(row: Mapping[str, Any], optimizer: str) -> str:
    losses, another = row["losses"][optimizer], row["another_test"].get(optimizer)
    told = "NaN" if losses is None else " / ".join(f"{loss:g}" for loss in losses)
    return told if another is None else f"{told} (another source: test {another:g})"


def _measured(arm: Arm) -> tuple[str, str]:
    """The cells of an arm: its mean on the test split, and how many runs it is of."""
    known = [value for value in arm.by_seed(f"test/{arm.metric}").values() if math.isfinite(value)]
    mean = sum(known) / len(known) if known else math.nan
    return with_interval(mean, statistics.bootstrap_t(known)), f"{len(arm.over)} ({arm.diverged})"


def _notes(found: Sequence[Comparison]) -> list[str]:
    """What has to be known of the runs of a table, and why some of them are not compared."""
    arms = list({id(arm): arm for one in found for arm in (one.a, one.b)}.values())
    hindered = [f"{one.b.label}: {'; '.join(map(str, one.obstacles))}." for one in found if one.obstacles]
    return [*(f"Not comparable: {line}" for line in hindered), *cautions.notes(arms, "test")]


def _answered(one: Comparison) -> tuple[str, str]:
    """The cells of a comparison: the difference, and what it says of the claim."""
    if not one.judged:
        return "", answer(one.verdict)
    return with_interval(one.pairs.difference, one.pairs.interval), answer(one.verdict)


# ---- Table 4 --------------------------------------------------------------------------------------------------------


def _table4(arms: Sequence[Arm], print_of: Mapping[str, Any]) -> Iterator[str]:
    powers: dict[tuple[str, str, str], dict[float, Arm]] = {}
    for arm in arms:
        own = _own(arm)
        if arm.optimizer == OURS and "optimizer.power" in own:
            power = float(own.pop("optimizer.power"))
            there = powers.setdefault((arm.task, arm.model, canonical(own)), {})
            if power in there:
                print(f"vrbench: table 4: {arm.name}: another arm has this power; left out", file=sys.stderr)
                continue
            there[power] = replace(arm, metric="loss", direction="min")
    best = print_of["best_power"]
    for by_power in powers.values():
        if best not in by_power or len(by_power) < 2:
            continue
        ours = by_power[best]
        others = [power for power in sorted(by_power) if power != best]
        found = compare([(ours, by_power[power]) for power in others], "test", Smallest())
        cells = [[f"{best:g}", _printed_power(print_of, best), *_measured(ours), "", ""]]
        for power, one in zip(others, found, strict=True):
            cells.append([f"{power:g}", _printed_power(print_of, power), *_measured(one.b), *_answered(one)])
        headings = [
            "k",
            "published test",
            "here, test loss",
            "n (diverged)",
            f"k={best} − it",
            f"claim: k={best} is lowest",
        ]
        notes = [
            _comparability(ours, print_of["same"]),
            _how_tuned(list(by_power.values())),
            *_notes(found),
        ]
        yield f"## Table 4, kinetic power: {ours.task}, {ours.model}\n\n{markdown(Table(headings, cells, [], notes))}"


def _how_tuned(arms: Sequence[Arm]) -> str:
    searches = [{record["search"] for record in arm.tuned} for arm in arms]
    if all(searches) and not set.intersection(*searches):
        return f"Each k was tuned by itself: {', '.join(sorted(arms[0].tuned[0]['params']))}."
    return "All else at the tuned values of k = 2; not tuned again for each k."


def _printed_power(print_of: Mapping[str, Any], power: float) -> str:
    losses = print_of["losses"]
    return f"{losses[power]:g}" if power in losses else "not in our sources"


# ---- Figure 2 -------------------------------------------------------------------------------------------------------


def _figure2(arms: Sequence[Arm], print_of: Mapping[str, Any]) -> Iterator[str]:
    for together in groups(arms).values():
        ours = [run for arm in together if arm.optimizer == OURS for run in arm.over]
        if any("eos/sharpness" in columns(run) for run in ours):
            yield _gate_of_figure2(together, print_of)


def _gate_of_figure2(together: Sequence[Arm], print_of: Mapping[str, Any]) -> str:
    cells = []
    for other in together:
        for run in other.over:
            rows = list(run.rows())
            gates = {row["step"]: row["optim/gate"] for row in rows if "optim/gate" in row}
            lowest = min(gates, key=gates.__getitem__) if gates else None
            last = {
                key: row[key] for row in rows for key in ("train/loss", "eos/sharpness", "optim/gate") if key in row
            }
            accuracy = run.summary["metrics"].get("val/accuracy", math.nan) if run.summary else math.nan
            cells.append(
                [other.label, str(run.manifest["seed"]), number(last.get("train/loss", math.nan)), number(accuracy),
                 number(last.get("eos/sharpness", math.nan)),
                 f"{gates[lowest]:.3f} at step {lowest}" if lowest is not None else "",
                 f"{last['optim/gate']:.3f}" if gates else "",
                 _dips(gates, print_of["dip_by_step"]) if gates else ""]
            )  # fmt: skip
    headings = ["optimizer", "seed", "train loss", "val accuracy", "λmax, last", "gate, lowest", "gate, last",
                "claim: dips early, then climbs to near α0"]  # fmt: skip
    notes = [
        _comparability(together[0], print_of["same"]) + " The curves' own figures are not in our sources.",
        f"The claim holds where the gate is lowest at a step ≤ {print_of['dip_by_step']} and ends above {NEAR}.",
    ]
    return f"## Figure 2: {together[0].task}, {together[0].model}\n\n{markdown(Table(headings, cells, [], notes))}"


def _dips(gates: Mapping[int, float], by_step: int) -> str:
    lowest, last = min(gates, key=gates.__getitem__), gates[max(gates)]
    if min(gates) > by_step:
        return f"nothing can be said: no row up to step {by_step}"
    return SAME if lowest <= by_step and last >= NEAR and gates[lowest] < last else OTHER
