"""Search for hyperparameters: trials that survive a crash and are shared by workers, their ranking, the best of them.

A search is a folder: `journal.log` (Optuna's journal; every trial's parameters and results), `lock` (held while a
trial is claimed or told), `trial-N.lock` (held while a process works on trial N; the system frees it when the process
dies) and `trials.json` (the plain summary that tables and confirmation read). A trial is claimed before its runs start
and told after they are over: whoever dies in between leaves a trial that the next claim hands out again with the same
parameters, and its finished runs are found finished.

Costs are minimised: the metric where less is better, its negative where more is, infinity for a diverged run.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
import yaml
from filelock import Timeout
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as validated

from vrbench.runs import records
from vrbench.runs.identity import DIGEST_BYTES, identify
from vrbench.runs.locks import Lock
from vrbench.runs.source import changed_since, code_of
from vrbench.tuning import confirmation
from vrbench.tuning.confirmation import literal
from vrbench.tuning.journal import STUDY, open_storage, open_study
from vrbench.tuning.pruning import spoil
from vrbench.tuning.sampling import make_sampler
from vrbench.tuning.spaces import check_key, edges, grid, merged, read_space
from vrbench.tuning.trials import Outcome, outcome, plain

LEAST_STARTUP = 8
"""The fewest random trials before an adaptive sampler: with fewer, a search's end hangs on its first draw."""


@validated(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class SearchSettings:
    """What a search is. Field meanings are in conf/hydra/sweeper/search.yaml, which states every one."""

    n_trials: Annotated[int, Field(ge=1)]
    sampler: Literal["tpe", "random", "quasi", "grid"]
    pruner: Literal["none", "median", "hyperband"]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    metric: str | None
    direction: Literal["min", "max"] | None
    search_seed: Annotated[int, Field(ge=0)]
    startup_trials: Annotated[int, Field(ge=LEAST_STARTUP)]
    grid_points: Annotated[int, Field(ge=2)]
    parallel: Annotated[int, Field(ge=1)]
    space: dict[str, Any]
    replicate: Annotated[int, Field(ge=0)] = 0
    control: bool = False

    @model_validator(mode="after")
    def _fit_together(self) -> SearchSettings:
        if (self.metric is None) != (self.direction is None):
            raise ValueError("metric and direction go together: give both, or neither for the task's own metric")
        if self.pruner != "none" and len(self.seeds) > 1:
            raise ValueError(f"pruner={self.pruner} judges single runs: give one seed, or take pruner=none")
        if max(self.seeds) >= confirmation.FIRST_SEED:
            raise ValueError(f"seeds={self.seeds}: seeds from {confirmation.FIRST_SEED} on are for confirmation")
        return self


@dataclass(frozen=True)
class Claim:
    """A trial that this process has to run: nobody else has it."""

    number: int
    params: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        """The trial's parameters as Hydra overrides."""
        return [f"{key}={value if isinstance(value, str) else literal(value)}" for key, value in self.params.items()]


class Search:
    """One search, as one of its workers sees it. Any number of processes may work on the same folder."""

    def __init__(
        self,
        study: Path,
        choices: Mapping[str, str],
        settings: SearchSettings,
        config: Mapping[str, Any],
        base: Callable[[Mapping[str, str]], Mapping[str, Any]],
        follows_seed: Sequence[str] = (),
        others: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Open or begin the search in the study's folder.

        `choices` are the chosen YAML of each config group, `base` gives the config of such choices alone, and `config`
        is what every trial starts from; `follows_seed` are its keys that hold the seed. Where YAMLs of a group are
        searched, `others` are the configs with each of them but the first. Raises ValueError for a wrong space,
        for a grid that the budget cannot hold, and for a search whose code has changed since it began.
        """
        parts = [choices[group].replace("/", "_") for group in ("task", "model", "optimizer")]
        arm = identify(config, follows_seed=follows_seed).arm
        self.name = "-".join([*parts, fingerprint(settings, arm)])
        self.study = study
        self.choices = dict(choices)
        self.base = base
        self.settings = settings
        folder = self.folder = study / "search" / self.name
        self.space = read_space(settings.space)
        for key in self.space:
            for one in (config, *others):
                check_key(key, one)
        self.budget = settings.n_trials
        points = grid(self.space, settings.grid_points) if settings.sampler == "grid" else []
        if points:
            if len(points) > settings.n_trials:
                raise ValueError(
                    f"n_trials={settings.n_trials}: the grid has {len(points)} points; give at least as many trials, "
                    f"or fewer grid_points or choices"
                )
            self.budget = len(points)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(folder / "lock")
        self._claimed: dict[int, Lock] = {}
        self._given_up: set[int] = set()
        with self._lock:
            self._open()
            self._check_code(functools.reduce(merged, map(code_of, (config, *others))), config["force"])
            self._check_closed()
            for point in points[len(self._trials()) :]:
                self._study.enqueue_trial(point)

    def _open(self) -> None:
        self._storage = open_storage(self.folder)
        self._study = open_study(self.folder, self._storage)

    def _id(self, number: int) -> int:
        """A trial's id in the storage."""
        study = self._storage.get_study_id_from_name(STUDY)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _check_code(self, code: dict[str, dict[str, str]], force: bool | str) -> None:
        """Trials of different code are not one search: begin anew, go on knowingly, or raise ValueError."""
        begun = self._study.user_attrs.get("code")
        changed = changed_since(begun) if begun is not None and self._begun() else []
        if changed and force in (True, "changed"):
            aside = self.folder / f"replaced-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}"
            aside.mkdir()
            for name in ("journal.log", "trials.json"):
                if (self.folder / name).exists():
                    (self.folder / name).rename(aside / name)
            self._open()
            print(f"search {self.name}: its code has changed ({', '.join(changed)}): begun anew, the old in {aside}")
        elif changed and force == "resume":
            changes = self._study.user_attrs.get("code_changes", [])
            self._study.set_user_attr("code_changes", [*changes, {"trial": self._begun(), "changed": changed}])
        elif changed:
            line = f"search {self.name}: its code has changed since it began ({', '.join(changed)})"
            if len(self.finished) < self.budget:
                raise ValueError(f"{line}: force=changed begins it anew, force=resume goes on knowingly")
            print(f"{line}: force=changed searches again")
        if begun is None or (changed and force in (True, "changed", "resume")):
            self._study.set_user_attr("code", code)

    def _check_closed(self) -> None:
        """A search that was confirmed is over. Raises ValueError where more trials are asked of it."""
        if confirmation.is_closed(self.folder) and self.budget > len(self.finished):
            raise ValueError(
                f"n_trials={self.budget}: search {self.name} was confirmed after {len(self.finished)} trials and is "
                "closed; more replicates, or another search_seed, search anew"
            )

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that are over: complete, pruned, or broken for good."""
        return [trial for trial in self._trials() if trial.state.is_finished()]

    def claim(self) -> list[Claim]:
        """Trials for this worker to run, at most `parallel`: those of dead workers first, then new ones."""
        found: list[Claim] = []
        with self._lock:
            for trial in self._trials():
                if len(found) == self.settings.parallel:
                    break
                if (
                    trial.state is TrialState.RUNNING
                    and trial.number not in self._given_up
                    and self._take(trial.number)
                ):
                    if "pruned_at" in trial.user_attrs:
                        self._tell(trial.number, TrialState.PRUNED)
                        continue
                    found.append(self._suggest(optuna.trial.Trial(self._study, self._id(trial.number))))
            while len(found) < self.settings.parallel and self._begun() < self.budget:
                wanted = self.settings
                self._study.sampler = make_sampler(
                    wanted.sampler,
                    self.name,
                    wanted.search_seed,
                    wanted.replicate,
                    self._begun(),
                    wanted.startup_trials,
                )
                trial_ = self._study.ask()
                self._take(trial_.number)
                found.append(self._suggest(trial_))
        return found

    def _begun(self) -> int:
        return sum(trial.state is not TrialState.WAITING for trial in self._trials())

    def _take(self, number: int) -> bool:
        lock = Lock(self.folder / f"trial-{number}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return False
        self._claimed[number] = lock
        return True

    def _suggest(self, trial: optuna.Trial) -> Claim:
        """Draw the parameters that the trial has not got yet (a worker may have died while it drew them)."""
        for key, distribution in self.space.items():
            if isinstance(distribution, CategoricalDistribution):
                trial.suggest_categorical(key, distribution.choices)
            elif isinstance(distribution, IntDistribution):
                trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log)
            elif isinstance(distribution, FloatDistribution):
                trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
        return Claim(trial.number, {key: trial.params[key] for key in self.space})

    def tell(self, claim: Claim, result: Outcome) -> None:
        """The trial's runs are over; a diverged one is told as infinitely bad, and stays in the search."""
        with self._lock:
            self._note(claim.number, asdict(result))
            if math.isinf(result.cost) and self.settings.pruner != "none":  # its run may have died before it said so
                spoil(self._storage, self._id(claim.number), len(self._trials()[claim.number].intermediate_values))
            self._tell(claim.number, TrialState.COMPLETE, result.cost)

    def leave(self, claim: Claim, *, broke: bool) -> bool:
        """Give an unfinished trial back, for a later start to run; one that breaks a second time is given up.

        Returns whether it was given up.
        """
        with self._lock:
            trial = self._trials()[claim.number]
            if "pruned_at" in trial.user_attrs:
                self._tell(claim.number, TrialState.PRUNED)
                return False
            if broke and "broke" in trial.user_attrs:
                self._tell(claim.number, TrialState.FAIL)
                return True
            if broke:
                self._note(claim.number, {"broke": True})
            self._given_up.add(claim.number)
            self._claimed.pop(claim.number).release()
        return False

    def _note(self, number: int, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self._storage.set_trial_user_attr(self._id(number), key, value)

    def _tell(self, number: int, state: TrialState, cost: float | None = None) -> None:
        self._study.tell(number, cost, state=state)
        self._claimed.pop(number).release()
        (self.folder / f"trial-{number}.lock").unlink(missing_ok=True)

    def spend(self, launch: Callable[[list[list[str]]], list[Path | int]]) -> int:
        """Run trials until none is left to this worker, and say what came of it; returns the worst exit code.

        `launch` trains one run for each list of overrides, and gives its folder, or the exit code of one that failed
        (2: a wrong config, which ends the search at once).
        """
        print(f"search {self.name}: {len(self.finished)} of {self.budget} trials are finished", flush=True)
        worst = 0
        while claims := self.claim():
            jobs = [[*self._overrides(claim), f"seed={seed}"] for claim in claims for seed in self.settings.seeds]
            results = iter(launch(jobs))
            for claim in claims:
                folders, codes = [], [0]
                for result in itertools.islice(results, len(self.settings.seeds)):
                    folders += [result] if isinstance(result, Path) else []
                    codes += [result] if isinstance(result, int) else []
                worst = max(worst, *codes)
                if 2 in codes:
                    return worst
                result_ = None if any(codes) else outcome(folders, self.settings.metric, self.settings.direction)
                if result_ is not None:
                    self.tell(claim, result_)
                elif self.leave(claim, broke=any(codes)):
                    print(f"search {self.name}: trial {claim.number} broke twice and is given up")
        self._report()
        return worst

    def _overrides(self, claim: Claim) -> list[str]:
        if self.settings.pruner == "none":
            return claim.overrides
        here = literal({"folder": str(self.folder), "number": claim.number})
        return [*claim.overrides, f"hydra.sweeper.trial={here}"]

    # ---- what came of it --------------------------------------------------------------------------------------------

    def ranking(self) -> list[FrozenTrial]:
        """Complete trials, best first; ties go to the earlier one."""
        complete = [trial for trial in self._trials() if trial.state is TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: (trial.value, trial.number))

    def _report(self) -> None:
        """Write `trials.json` and, where the budget is spent, the best configuration; say both on the console."""
        with self._lock:
            summary = self._summary()
            best, number = None, summary["best"]
            if number is not None and summary["finished"] == self.budget:
                trial = self._trials()[number]
                config = yaml.safe_load(
                    (self.study / "tune" / trial.user_attrs["runs"][0] / "config.yaml").read_bytes()
                )
                choices = {key: _chosen(trial.params[key]) if key in trial.params else choice
                           for key, choice in self.choices.items()}  # fmt: skip
                values = confirmation.difference(config, self.base(choices))
                heading = f"Best of {self.budget} trials, number {number}: {_numbers(trial.user_attrs['metrics'])}"
                best = confirmation.write_best(self.study, self.name, choices, values, heading)
            records.write_json(self.folder / "trials.json", summary)
        states = [trial["state"] for trial in summary["trials"]]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        print(f"search {self.name}: {summary['finished']} of {self.budget} trials are over ({counts})")
        if best is None:
            print("  the same command goes on with it" if summary["finished"] < self.budget else "  no trial finished")
            return
        for place, trial in enumerate(self.ranking()[:3], 1):
            params = " ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
            print(f"  {place}. trial {trial.number}: {_numbers(trial.user_attrs['metrics'])}  {params}")
        for edge in summary["edges"]:
            print(f"  warning: {edge}")
        print(f"  → {best}")

    def _summary(self) -> dict[str, Any]:
        """The settings, every trial, the best one and the edges that it lies on, as plain values."""
        ranking = [trial for trial in self.ranking() if trial.value is not None and math.isfinite(trial.value)]
        best = ranking[0] if ranking else None
        return {
            "name": self.name,
            "choices": self.choices,
            "settings": asdict(self.settings),
            "budget": self.budget,
            "finished": len(self.finished),
            "best": best.number if best else None,
            "edges": edges(best.params, self.space) if best else [],
            "code": self._study.user_attrs.get("code", {}),
            "code_changes": self._study.user_attrs.get("code_changes", []),
            "trials": [plain(trial) for trial in self._trials() if trial.state is not TrialState.WAITING],
        }


def _chosen(value: str) -> str:
    """The YAML of a config group that a trial's parameter names, which is the text of an override."""
    return str(yaml.safe_load(value))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{key} {_short(value)}" for key, value in metrics.items())


def fingerprint(settings: SearchSettings, arm: str) -> str:
    """Sixteen hex digits of what makes two searches one: the configuration around the space, and how it is searched.

    The budget, the pruner and the number of trials at a time may change while a search goes on.
    """
    fixed = {k: v for k, v in asdict(settings).items() if k not in ("n_trials", "pruner", "parallel")}
    if settings.sampler != "grid":
        fixed.pop("grid_points")
    text = json.dumps([fixed, arm], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
