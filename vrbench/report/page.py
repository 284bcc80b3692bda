"""The page: one HTML file that says first what was found, then shows each task, and where the numbers come from.

Needs no network and no server; a content security policy forbids it any request and every script but its own, and all
that comes out of records is escaped by Jinja.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from vrbench.report import eos_figure, forest, search_figures, tables
from vrbench.report.arms import Arm
from vrbench.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, chart
from vrbench.report.compare import Comparison
from vrbench.report.curves import curve, groups, representative
from vrbench.report.formats import Table
from vrbench.report.lines import worse
from vrbench.report.looks import Looks
from vrbench.report.pictures import COST, TUNING, Picture, printed, samples
from vrbench.report.registered import registered
from vrbench.report.rivals import Rival, rivals
from vrbench.report.style import looks
from vrbench.report.view import DEFAULT, looks_of
from vrbench.runs import records
from vrbench.runs.index import has_read_test

MOST_ARMS = 8
"""Lines in a chart, and pictures of a task."""
MOST_POINTS = 200
"""Points of a line."""
MOST_NAMES = 200
"""Names in a list of runs."""

BUDGET = (
    "Best found against budget: the best validation that so many trials of a search are expected to find, mean over "
    "the tuning replicates with Student's 95 % interval (from three on)."
)
CURVES = (
    "Curves: mean over seeds with Student's 95 % interval at each step, from three seeds on (of the logarithm where "
    "all values are positive); × where a run diverged, the mean goes on over the others. Point at a chart, or move its "
    "slider with the arrow keys, to read values."
)
EDGE = (
    "Edge of stability: sharpness over the threshold at which the optimizer's step stops being stable; the dashed rule "
    "at 1 is the edge."
)
EOS = {
    "eos/ratio": "sharpness ÷ threshold",
    "eos/sharpness": "sharpness",
    "eos/preconditioned_sharpness": "preconditioned sharpness",
    "optim/effective_lr": "effective lr",
    "optim/velocity_sq": "velocity²",
}


@dataclass(frozen=True)
class Verdicts:
    """A rival against the baseline, with what the page shows beside the verdicts."""

    rival: Rival
    table: Table
    budgets: list[Chart]
    """The best found against the number of trials, of each task in which both were searched."""


class Footnotes:
    """The notes of the page, each once, by the number at which the text refers to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def of(self, lines: Iterable[str]) -> list[tuple[int, int]]:
        """The numbers of some notes as stretches, first and last; those that are new are added at the end."""
        told = list(dict.fromkeys(lines))
        self.lines += [line for line in told if line not in self.lines]
        stretches: list[tuple[int, int]] = []
        for number in sorted(self.lines.index(line) + 1 for line in told):
            if stretches and number == stretches[-1][1] + 1:
                stretches[-1] = stretches[-1][0], number
            else:
                stretches.append((number, number))
        return stretches


@dataclass(frozen=True)
class TaskPart:
    """What the page says of one task and model."""

    task: str
    model: str
    table: Table
    tuned: Table | None
    left_out: int
    """How many configurations are not drawn."""
    lineless: list[str]
    """Labels of those that have no row to draw."""
    charts: list[Chart]
    eos: list[Chart]
    tuning: list[Picture]
    cost: list[Picture]
    samples: list[Picture]
    provenance: list[tuple[str, list[str]]]


def write(arms: Sequence[Arm], output: Path) -> Path:
    """Write the page of these arms and return its path. Raises OSError where it cannot be written."""
    output.parent.mkdir(parents=True, exist_ok=True)
    looks = Looks()
    text = render(arms, looks)
    records.write_whole(output, lambda file: file.write(text.encode()))
    return output


def render(arms: Sequence[Arm], looks: Looks | None = None) -> str:
    """The page as text; what it shows is added to `looks`.

    The smallest effect, the baseline and the number of tests are those of the study's plan, where there is one.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    plan, met = registered(arms), rivals(arms, MOST_ARMS, looks)
    folder = files("vrbench.report") / "templates"
    script, style = ((folder / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = Environment(
        loader=PackageLoader("vrbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["joined"] = lambda cell: re.sub(" (?=[↑↓])", "\u00a0", cell)
    return environment.get_template("page.html").render(
        title=f"vrbench: {', '.join(sorted({arm.task for arm in arms}))}",
        script=script,
        style=style,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        plan=plan.note if plan else "",
        forest=forest.plot(met),
        rivals=[Verdicts(one, _with_chosen(one), list(_budgets(one.found))) for one in met],
        parts=[_part(own) for own in groups(arms).values()],
        notes=Footnotes(),
        told={"budget": BUDGET, "curves": CURVES, "edge": EDGE},
        runs=sum(len(arm.over) for arm in arms),
        unfinished=sum(len(arm.runs) - len(arm.over) for arm in arms),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _budgets(found: Sequence[Comparison]) -> Iterator[Chart]:
    """Of each task, model and schedule of the comparisons that the searches beside them have."""
    for one in found:
        schedule = one.a.settings.get("schedule")
        there = [
            search
            for search in search_figures.searches([one.a, one.b])
            if (search.task, search.model) == (one.a.task, one.a.model)
            and search.optimizer in (one.a.optimizer, one.b.optimizer)
            and schedule in (None, search.schedule)
        ]
        lines = search_figures.budget_curves(there)
        if lines:
            optimizers = {label: label.partition(" ")[0] for label in sorted(lines)}
            style = looks((optimizer, label) for label, optimizer in optimizers.items())
            both = one.a, one.b
            named = {
                label: f"{DEFAULT.named(optimizer, both)}{label.removeprefix(optimizer)}"
                for label, optimizer in optimizers.items()
            }
            title = (
                f"best found, {' '.join(filter(None, (one.a.task, one.a.model, schedule)))}: expected {there[0].metric}"
            )
            yield chart(title, [(named[label], style[label], lines[label]) for label in optimizers], unit="trial")


def _part(arms: Sequence[Arm]) -> TaskPart:
    first, drawn = arms[0], representative(arms, MOST_ARMS)
    keys = dict.fromkeys([f"val/{first.metric}", "val/loss", "train/loss"])
    names = {key: f"{'training' if key.startswith('train') else 'validation'} {key.split('/', 1)[1]}" for key in keys}
    table = tables.summary(arms)
    return TaskPart(
        first.task,
        first.model,
        _without(table, "task", "model"),
        _without(table.appendix, "task", "model") if table.appendix else None,
        len(arms) - len(drawn),
        [DEFAULT.described(arm) for arm in drawn if not any(curve(arm, key, MOST_POINTS) for key in names)],
        list(_charts(arms, drawn, names)),
        list(_charts(arms, drawn, EOS)) if any(map(eos_figure.measured, drawn)) else [],
        list(printed(arms, TUNING)),
        list(printed(arms, COST)),
        list(samples(drawn)),
        list(_provenance(arms)),
    )


def _without(table: Table, *dropped: str) -> Table:
    """The table without columns that its place on the page says already, without empty ones, and by itself."""
    kept = [
        place
        for place, heading in enumerate(table.headings)
        if heading not in dropped and any(cells[place] for cells in table.cells)
    ]
    cells = [[line[place] for place in kept] for line in table.cells]
    return replace(table, headings=[table.headings[place] for place in kept], cells=cells, appendix=None)


def _with_chosen(one: Rival) -> Table:
    """The rival's table, with which of its arms and of the baseline's are compared, where its notes do not say it."""
    table = _without(one.table, "verdict", "median", "P(improvement)")
    chosen = [
        f"{found.a.task}, {found.a.model}: {found.a.label} against {found.b.label}."
        for found in one.found
        if (found.a.settings or found.b.settings) and found.among == (1, 1)
    ]
    return replace(table, notes=[*chosen, *table.notes])


def _charts(arms: Sequence[Arm], drawn: Sequence[Arm], names: dict[str, str]) -> Iterator[Chart]:
    style = looks_of(arms)
    for key, name in names.items():
        found = [
            (DEFAULT.described(arm), style[arm.label], line) for arm in drawn if (line := curve(arm, key, MOST_POINTS))
        ]
        if found:
            rule = 1.0 if key == "eos/ratio" else None
            yield chart(name.replace("_", " "), found, rule, edge=worse(arms[0], key))


def _provenance(arms: Sequence[Arm]) -> Iterator[tuple[str, list[str]]]:
    """Where the task's numbers come from, as lines by heading; what all runs have in common is said once."""
    runs = [run for arm in arms for run in arm.over]
    manifests = [run.manifest for run in runs]
    yield "code", _counted(_code(manifest) for manifest in manifests)
    yield "versions", _counted(", ".join(f"{k} {v}" for k, v in manifest["versions"].items()) for manifest in manifests)
    yield "machines", _counted(_machine(manifest["machine"]) for manifest in manifests)
    yield "seeds", [f"{arm.label}: {', '.join(str(run.manifest['seed']) for run in arm.over)}" for arm in arms]
    yield "test split", _counted("read" if run.summary and has_read_test(run.summary) else "not read" for run in runs)
    if manifests:
        ended = max(manifest.get("ended", manifest["started"]) for manifest in manifests)
        yield "trained", [f"{min(manifest['started'] for manifest in manifests)} to {ended}"]
    yield "commands", _counted(shlex.join(manifest["command"]) for manifest in manifests)
    names = [f"{manifest['study']}/{manifest['name']}" for manifest in manifests]
    more = [f"and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    yield "runs", names[:MOST_NAMES] + more


def _counted(lines: Iterable[str]) -> list[str]:
    found = Counter(lines)
    return (
        list(found) if len(found) < 2 else [f"{line} ({count} runs)" for line, count in found.most_common(MOST_NAMES)]
    )


def _code(manifest: dict[str, Any]) -> str:
    """The commit of the project that a run was started in, and that of vrbench where it is another."""
    project = manifest["git"]
    vrbench = manifest.get("vrbench_git", project)
    if project == vrbench:
        return _commit(project) or "an installed package, no checkout"
    return f"project: {_commit(project) or 'no checkout'}; vrbench: {_commit(vrbench) or 'an installed package'}"


def _commit(git: dict[str, Any]) -> str:
    return "" if git["sha"] is None else f"{git['sha']}{' with uncommitted changes' if git['dirty'] else ''}"


def _machine(machine: dict[str, Any]) -> str:
    gpu = f" ({machine['gpu']})" if machine.get("gpu") else ""
    several = f", {machine['processes']} processes" if machine.get("processes", 1) > 1 else ""
    of = f"{machine['cpu']} {machine['system']} machine"
    return f"{machine['device']}{gpu} of a {of}, {machine['threads']} threads{several}"
