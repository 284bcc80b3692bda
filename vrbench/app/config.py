"""Hydra's config read: its own part as plain values, its numbers typed, the keys that follow the seed."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict

from vrbench.app.refusals import ConfigError, checked, errors_at, offer
from vrbench.contracts import TrainerSettings
from vrbench.runs.identity import FOLLOWS, leaves
from vrbench.runs.source import numbers_typed

GROUPS = ("task", "model", "optimizer", "schedule", "trainer", "probe", "logger")
RUN_WIDE = ("seed", "study", "results_dir", "force")
KEYS = {*GROUPS, *RUN_WIDE}

SEARCHABLE = ("schedule", "model", "trainer")
"""Config groups whose YAMLs a search may choose among; a search is of one task and one optimizer."""
SEARCHED = "_search_"
"""Key of an optimizer's YAML that says what a search of it varies: no argument of the optimizer."""
_REFERENCE = re.compile(r"\$\{[\w.]+\}")
"""The name of another key, as an interpolation writes it."""
_OWN_SPACE = "sweep/space@hydra.sweeper.space"


def follows_seed(cfg: DictConfig) -> tuple[str, ...]:
    """The keys that a user set to the seed, `task.data.split_seed=${seed}`: they differ within one arm."""
    raw = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    return tuple(".".join(path) for path, value in leaves(raw) if value == FOLLOWS)


def seeded(cfg: DictConfig) -> bool:
    """Whether another seed changes nothing in the config's own part but `seed` and what `follows_seed` names of a task.

    To be asked of a config before it is typed. False where that is not plain to see: another interpolation than the
    name of a number or word, or one whose value is the seed's.
    """
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    follows, seed = follows_seed(cfg), cfg.get("seed")
    if type(seed) is not int or not all(key.startswith("task.") for key in follows):
        return False
    for key, written, value in _written(OmegaConf.to_container(own), OmegaConf.to_container(own, resolve=True)):
        plain_name = _REFERENCE.fullmatch(written) and not isinstance(value, (Mapping, list)) and value != seed
        if not plain_name and not (written == FOLLOWS and key in follows):
            return False
    return True


def _written(raw: Any, resolved: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, str, Any]]:
    """Key, text and value of all interpolations."""
    if isinstance(raw, Mapping):
        for key, value in raw.items():
            yield from _written(value, resolved[key], (*at, str(key)))
    elif isinstance(raw, list):
        for number, value in enumerate(raw):
            yield from _written(value, resolved[number], (*at, str(number)))
    elif isinstance(raw, str) and "${" in raw:
        yield ".".join(at), raw, resolved


def other_seed(config: Mapping[str, Any], follows: Iterable[str], seed: int) -> dict[str, Any]:
    """The config with another seed, which keys in `follows` have too."""
    made = copy.deepcopy(dict(config))
    for key in ("seed", *follows):
        *above, last = key.split(".")
        node: Any = made
        for part in above:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[int(last) if isinstance(node, list) else last] = seed
    return made


def typed(cfg: DictConfig) -> dict[str, Any]:
    """The config's own part as `plain` gives it, its numbers with the types that its parts state: in `cfg` too.

    What a search varies is not in it, nor in `cfg` from here on. Raises ConfigError for trainer settings that are out
    of range.
    """
    if isinstance(cfg.get("optimizer"), DictConfig):
        with open_dict(cfg.optimizer):
            cfg.optimizer.pop(SEARCHED, None)
    config = plain(cfg)
    training = asdict(checked(TrainerSettings, config["trainer"], "trainer."))
    for key, value in ({f"trainer.{name}": value for name, value in training.items()} | numbers_typed(config)).items():
        OmegaConf.update(cfg, key, value)
    return plain(cfg)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config's own part, resolved, as plain values."""
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    if isinstance(plain.get("optimizer"), dict):
        plain["optimizer"].pop(SEARCHED, None)
    return {str(key): value for key, value in plain.items()}


def searched_groups(space: Mapping[str, Any], cfg: DictConfig, loader: ConfigLoader) -> dict[str, list[str]]:
    """The config groups that a search tries several YAMLs of, and which: `{"schedule": ["constant", "wsd"]}`.

    Raises ConfigError for a group whose YAMLs cannot be ranked against each other, and for a YAML that there is not.
    """
    from vrbench.tuning.confirmation import flat_space

    found: dict[str, list[str]] = {}
    for group, choices in flat_space(space).items():
        if group not in cfg.hydra.runtime.choices:
            continue
        key = f"hydra.sweeper.space.{group}={choices}"
        if group not in SEARCHABLE:
            raise ConfigError(f"{key}: trials choose among {', '.join(SEARCHABLE)}; sweep it: -m {group}=a,b")
        if not isinstance(choices, list):
            raise ConfigError(f"{key}: must be a list of choices: [a,b], or {{choice: [a,b], <key>: …}}")
        there = loader.get_group_options(group)
        for choice in choices:
            if choice not in there:
                raise ConfigError(f"{key}: no such choice {choice}; {offer(str(choice), there, group)}")
        found[group] = choices
    return found


def refuse_chosen(groups: Iterable[str], overrides: Iterable[str]) -> None:
    """Raises ConfigError for an override that chooses a YAML of a group that is searched."""
    for override in overrides:
        if override.partition("=")[0] in groups:
            raise ConfigError(f"{override}: is searched by hydra.sweeper.space; leave it out")


def search_space(cfg: DictConfig, loader: ConfigLoader) -> dict[str, Any]:
    """The space of a search as plain values: `hydra.sweeper.space` of the composed config.

    Where the search asks for the space of its optimizer and conf/sweep/space has none, the default is put below it.
    Raises ConfigError where that has none either.
    """
    from vrbench.tuning.spaces import default_space, merged

    node = OmegaConf.to_container(cfg.hydra.sweeper, resolve=True)
    assert isinstance(node, dict)
    given = node["space"] if isinstance(node["space"], dict) else {}
    wanted = cfg.hydra.runtime.choices.get(_OWN_SPACE)
    if wanted is None:
        return given
    folder, _, name = f"sweep/space/{wanted}".rpartition("/")
    if name in loader.get_group_options(folder):
        return given
    optimizer = OmegaConf.to_container(cfg.optimizer, resolve=True)
    assert isinstance(optimizer, dict)
    with errors_at("optimizer"):
        return merged(default_space(optimizer.get("lr"), optimizer.get(SEARCHED)), given)
