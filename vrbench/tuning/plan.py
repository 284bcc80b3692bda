"""A study's plan: a YAML file that says what is tuned, confirmed and compared, before anything is looked at.

docs/studies.md shows one, key by key.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

from vrbench.runs import records
from vrbench.runs.identity import decides
from vrbench.tuning.confirmation import FIRST_SEED, literal

FILE = "plan.json"
"""In the study's folder, once it was begun: the plan, its digest, and when."""
POWER = 0.8
STRICT = ConfigDict(extra="forbid", strict=True)


@validated(frozen=True, config=STRICT)
class PlannedTask:
    """A task with what holds for it alone: overrides, and its searches' YAML in conf/sweep."""

    task: str
    overrides: list[str] = Field(default_factory=list)
    sweep: str = "tune"


@validated(frozen=True, config=STRICT)
class Plan:
    """What a study is. All combinations of tasks, models, optimizers and schedules are tuned and confirmed."""

    study: str
    tasks: Annotated[list[str | PlannedTask], Field(min_length=1)]
    optimizers: Annotated[list[str], Field(min_length=1)]
    baseline: str
    trials: Annotated[int, Field(ge=1)]
    replicates: Annotated[int, Field(ge=1)]
    seeds: Annotated[int, Field(ge=1)]
    smallest_effect: str
    models: list[str] = Field(default_factory=list)
    schedules: list[str] = Field(default_factory=list)
    space: dict[str, Any] = Field(default_factory=dict)
    vary_split: bool = False
    control: bool = True
    overrides: list[str] = Field(default_factory=list)
    budget_runs: int | None = None
    budget_hours: float | None = None

    @property
    def arms(self) -> list[str]:
        """The optimizers, the baseline last."""
        return [*(name for name in self.optimizers if name != self.baseline), self.baseline]

    @property
    def planned_tasks(self) -> list[PlannedTask]:
        """The tasks, each with its overrides."""
        return [PlannedTask(task) if isinstance(task, str) else task for task in self.tasks]

    @property
    def settings(self) -> int:
        """Combinations of task, model and schedule."""
        return len(self.tasks) * max(1, len(self.models)) * max(1, len(self.schedules))

    @property
    def tests(self) -> int:
        """Comparisons of the study's one family: every rival with the baseline in every setting."""
        return self.settings * (len(self.arms) - 1)

    @property
    def searches(self) -> int:
        """Searches of the study, those of the control included."""
        return self.settings * (len(self.arms) + self.control) * self.replicates

    @property
    def runs(self) -> int:
        """Runs of the study: trials and confirmations."""
        return self.searches * (self.trials + self.seeds)


def read_plan(path: Path) -> tuple[Plan, str]:
    """A plan and its digest, which names its content whatever its layout.

    Raises OSError; ValueError (pydantic's, yaml's errors among them) for what is no plan, or one above its budget.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: must be a mapping of keys; docs/studies.md lists them")
    tasks = [PlannedTask(**task) if isinstance(task, Mapping) else task for task in content.get("tasks") or []]
    plan = Plan(**{**content, "tasks": tasks})
    if plan.budget_runs is not None and plan.runs > plan.budget_runs:
        raise ValueError(f"budget_runs={plan.budget_runs}: the plan has {plan.runs} runs")
    text = json.dumps(content, sort_keys=True)
    return plan, hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def commands(plan: Plan) -> list[list[str]]:
    """The study as words for `vrbench`: searches, those of the baseline's control, confirmation."""
    found = [_tune(plan, task, plan.arms) for task in plan.planned_tasks]
    if plan.control:
        found += [[*_tune(plan, task, [plan.baseline]), "hydra.sweeper.control=true"] for task in plan.planned_tasks]
    confirmed = f"seed=range({FIRST_SEED},{FIRST_SEED + plan.seeds})"
    # A search's best configuration has all that decides numbers, and nothing else (threads, loggers).
    keys = {word: word.partition("=")[0].lstrip("+~") for word in plan.overrides if not word.startswith("hydra")}
    others = [word for word, key in keys.items() if not decides(key)]
    return [*found, ["-m", "experiment=confirm", f"study={plan.study}", confirmed, *others]]


def _tune(plan: Plan, task: PlannedTask, optimizers: Sequence[str]) -> list[str]:
    swept = {"optimizer": optimizers, "model": plan.models, "schedule": plan.schedules}
    return [
        "-m",
        f"sweep={task.sweep}",
        f"study={plan.study}",
        f"task={task.task}",
        *(f"{group}={','.join(names)}" for group, names in swept.items() if names),
        f"hydra.sweeper.n_trials={plan.trials}",
        f"hydra.sweeper.replicates={plan.replicates}",
        f"hydra.sweeper.vary_split={str(plan.vary_split).lower()}",
        *(f"++hydra.sweeper.space.{key}={literal(node)}" for key, node in plan.space.items()),
        *plan.overrides,
        *task.overrides,
    ]


def detectable(units: int, tests: int) -> float:
    """The mean difference, in standard deviations of a unit's, that Student's t finds with 80 % power.

    Two-sided at 5 % over `tests` (Bonferroni, the first step of Holm's). Infinite for fewer than two units.
    Source: power of the t test by the noncentral t distribution.
    """
    from scipy import optimize, stats

    if units < 2:
        return math.inf
    freedom = units - 1
    bound = stats.t.isf(0.05 / tests / 2, freedom)

    def lacks(effect: float) -> float:
        return float(POWER - stats.nct.sf(bound, freedom, effect * math.sqrt(units)))

    high = 1.0
    while lacks(high) > 0:
        high *= 2
    return float(optimize.brentq(lacks, 0.0, high))


@dataclass(frozen=True)
class Progress:
    """How much of a study is there."""

    trials: int
    confirmed: int


def progress(study: Path) -> Progress:
    """Trials and confirmation runs of a study that are over."""
    return Progress(*(len(list(study.glob(f"{part}/*/summary.json"))) for part in ("tune", "confirm")))


def is_registered(study: Path) -> bool:
    """Whether the study was begun."""
    return (study / FILE).exists()


def register(study: Path, digest: str, plan: Plan) -> dict[str, Any]:
    """Note the plan in the study's folder before its first run, or read what was noted there. Raises OSError.

    Raises ValueError where the study was begun with another plan.
    """
    path = study / FILE
    if is_registered(study):
        noted: dict[str, Any] = json.loads(path.read_bytes())
        if noted["digest"] != digest:
            raise ValueError(
                f"study={study.name}: was begun on {noted['when']} with plan {noted['digest']}, and this is {digest}: "
                "give the changed plan a study of its own"
            )
        return noted
    noted = {"digest": digest, "when": records.now(), "tests": max(1, plan.tests), "plan": asdict(plan)}
    noted["runs"] = {"tune": plan.searches * plan.trials, "confirm": plan.searches * plan.seeds}
    study.mkdir(parents=True, exist_ok=True)
    records.write_json(path, noted)
    return noted
