"""From a finished search to its confirmation: the best configuration as a YAML, and what a fair comparison asks of it.

Needs no Optuna: reads and writes `<study>/search/*/trials.json` and `<study>/best/experiment/*.yaml`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vrbench.runs import records
from vrbench.runs.identity import decides
from vrbench.runs.source import changed_since

RANGE_KEYS = {"low", "high", "log", "int"}
"""Keys that make a mapping a range of a search space and not a group of keys."""
CHOICE = "choice"
"""Key of a config group in a search space that lists its YAMLs: `schedule: {choice: [constant, wsd], warmup: …}`."""
LEAST_SEEDS = 8
"""The fewest seeds that clear Holm's correction over four tasks (the exact two-sided p is at least 2/2^n)."""

FIRST_SEED = 2000
"""Seeds from here on are for confirmation: searches take smaller ones, and seed 0 is what everybody tries by hand."""
CLOSED = "closed.json"
"""In a search's folder once it was confirmed: with which seeds, and when."""


@dataclass(frozen=True)
class Candidate:
    """A search that is over, and its best configuration."""

    folder: Path
    summary: Mapping[str, Any]
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """The search's name."""
        return self.folder.name

    @property
    def seeds(self) -> list[int]:
        """The seeds that the search has used up."""
        return [int(seed) for seed in self.summary["settings"]["seeds"]]

    @property
    def replicate(self) -> int:
        """Which of several independent searches of the same arm it is."""
        return int(self.summary["settings"].get("replicate", 0))


def spaced(seeds: Sequence[int], replicate: int) -> list[int]:
    """A replicate's own seeds: those of replicate 0 moved on, so that no two replicates share one."""
    width = max(seeds) - min(seeds) + 1
    return [seed + replicate * width for seed in seeds]


def close(folder: Path, seeds: Sequence[int]) -> None:
    """Note that a search was confirmed on these seeds: no trial may be added to it. Raises OSError."""
    records.write_json(folder / CLOSED, {"when": records.now(), "seeds": sorted(seeds)})


def is_closed(folder: Path) -> bool:
    """Whether the search was confirmed."""
    return (folder / CLOSED).exists()


def best_path(study: Path, name: str) -> Path:
    """Where a search's best configuration lies: `vrbench --config-dir <study>/best experiment=<name>` finds it."""
    return study / "best" / "experiment" / f"{name}.yaml"


def difference(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The nested part of `config` that decides numbers (the seed apart) and that `base`, the same choices without
    overrides, does not say."""
    return _difference({key: value for key, value in config.items() if key != "seed"}, base, "")


def _difference(config: Mapping[str, Any], base: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if not decides(f"{prefix}{key}"):
            continue
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            if inner := _difference(value, base[key], f"{prefix}{key}."):
                found[key] = inner
        elif key not in base or base[key] != value or type(base[key]) is not type(value):
            found[key] = value
    return found


def write_best(study: Path, name: str, choices: Mapping[str, str], values: Mapping[str, Any], heading: str) -> Path:
    """Write the experiment YAML of a search's best trial; `heading` is one line of comment. Raises OSError."""
    defaults = [{f"override /{group}": choice} for group, choice in choices.items()]
    body = yaml.safe_dump({"defaults": defaults, **values}, sort_keys=False)
    text = f"# @package _global_\n# {heading}\n{body}"
    path = best_path(study, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_whole(path, lambda file: file.write(text.encode()))
    return path


def read_best(path: Path) -> list[str]:
    """The overrides that say what an experiment YAML of `write_best` says."""
    content = yaml.safe_load(path.read_bytes())
    defaults = content.pop("defaults")
    chosen = [f"{key.removeprefix('override /')}={choice}" for default in defaults for key, choice in default.items()]
    return chosen + [f"{key}={literal(value)}" for key, value in _flat(content, "")]


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def literal(value: Any) -> str:
    """A plain value as the right-hand side of a Hydra override that reads back as the same value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(literal(item) for item in value) + "]"
    text = str(value)
    if text.isidentifier() and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    return "'" + text.replace("'", "\\'") + "'"


def candidates(study: Path) -> list[Candidate]:
    """The searches of a study, all of them over. Raises ValueError where there is none, or one is not over yet."""
    found = []
    for path in sorted(study.glob("search/*/trials.json")):
        name, summary = path.parent.name, json.loads(path.read_bytes())
        if summary["finished"] < summary["budget"]:
            raise ValueError(
                f"study={study.name}: search {name} has {summary['finished']} of {summary['budget']} trials; "
                f"the command that began it goes on with it"
            )
        if summary["best"] is None:
            raise ValueError(f"study={study.name}: no trial of search {name} finished; widen its space or look at it")
        found.append(Candidate(path.parent, summary, tuple(read_best(best_path(study, name)))))
    if not found:
        raise ValueError(
            f"study={study.name}: no search in {study / 'search'}; begin one: vrbench -m sweep=tune study=…"
        )
    return found


def check_seeds(found: Sequence[Candidate], seeds: Sequence[int]) -> None:
    """Raises ValueError for a seed that a search of the study was tuned on; `seeds` are those of replicate 0."""
    confirmed = {seed for candidate in found for seed in spaced(seeds, candidate.replicate)}
    for candidate in found:
        if used := sorted(confirmed.intersection(candidate.seeds)):
            raise ValueError(f"seed={used[0]}: search {candidate.name} was tuned on it; confirm on fresh seeds")


def check_code(found: Sequence[Candidate]) -> None:
    """Raises ValueError for a search whose code has changed since: its best values are those of other code."""
    for candidate in found:
        if changed := changed_since(candidate.summary.get("code", {})):
            raise ValueError(
                f"search {candidate.name}: was tuned with other code ({', '.join(changed)} changed since): tune again "
                "with force=changed, or confirm it all the same with force=resume"
            )


def provenance(folder: Path) -> dict[str, Any]:
    """What a confirmed run's manifest says of its tuning: the search, its budget and space, and what it chose.

    Raises FileNotFoundError, or ValueError for a search without a best trial.
    """
    summary = json.loads((folder / "trials.json").read_bytes())
    if summary["best"] is None:
        raise ValueError(f"{folder.name}: no trial finished")
    (best,) = [trial for trial in summary["trials"] if trial["number"] == summary["best"]]
    settings = summary["settings"]
    return {
        "search": summary["name"],
        "trials": summary["finished"],
        "budget": summary["budget"],
        "sampler": settings["sampler"],
        "seeds": settings["seeds"],
        "metric": settings["metric"],
        "space": flat_space(settings["space"]),
        "params": best["params"],
        "edges": summary["edges"],
        "replicate": settings.get("replicate", 0),
        "control": settings.get("control", False),
    }


def flat_space(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A search space by key written with dots: `{"optimizer.lr": {"low": …, "high": …, "log": true}}`.

    The choice of a config group has the group's name: `{"schedule": ["constant", "wsd"], "schedule.warmup": …}`.
    """
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and not value.keys() & RANGE_KEYS:
            found |= flat_space(value, f"{prefix}{key}.")
        elif value is not None:
            found[prefix[:-1] if key == CHOICE and prefix.count(".") == 1 else f"{prefix}{key}"] = value
    return found


def cautions(found: Sequence[Candidate], seeds: Sequence[int]) -> list[str]:
    """Lines on what weakens the comparison.

    Unequal budgets, ranges of rates or numbers of searched keys within a task; trials ranked by another metric than
    the task's own; too few seeds; an optimum on an edge.
    """
    lines = []
    tasks: dict[str, dict[str, list[Candidate]]] = {}
    for candidate in found:
        if not candidate.summary["settings"].get("control", False):
            choices = candidate.summary["choices"]
            arm = " ".join(str(choices[group]) for group in ("optimizer", "schedule") if group in choices)
            tasks.setdefault(choices["task"], {}).setdefault(arm, []).append(candidate)
    for task, arms in tasks.items():
        spaces = {arm: flat_space(own[0].summary["settings"]["space"]) for arm, own in arms.items()}
        budgets = {arm: sum(candidate.summary["finished"] for candidate in own) for arm, own in arms.items()}
        if _differ(budgets):
            lines.append(f"task {task}: unequal budgets ({_listed(budgets)} trials): the comparison favours the larger")
        if _differ(rates := {arm: _range(space.get("optimizer.lr")) for arm, space in spaces.items()}):
            lines.append(f"task {task}: unequal ranges of optimizer.lr ({_listed(rates)})")
        if _differ(keys := {arm: len(space) for arm, space in spaces.items()}):
            lines.append(
                f"task {task}: unequal numbers of searched keys ({_listed(keys)}): "
                "the same trials cover the larger space more thinly"
            )
    metrics = {candidate.summary["settings"]["metric"] for candidate in found} - {None}
    lines += [
        f"trials were ranked by {metric}, and a report compares the task's own metric where that is another"
        for metric in sorted(metrics)
    ]
    if len(set(seeds)) < LEAST_SEEDS:
        lines.append(f"{len(set(seeds))} seeds: a verdict needs at least {LEAST_SEEDS}")
    return lines + [f"search {candidate.name}: {edge}" for candidate in found for edge in candidate.summary["edges"]]


def _differ(values: Mapping[str, Any]) -> bool:
    return len(set(values.values())) > 1


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _range(node: Any) -> str:
    if isinstance(node, Mapping):
        return f"{node['low']:g} to {node['high']:g}"
    return "not searched" if node is None else str(list(node))
