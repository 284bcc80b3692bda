"""Refusals: every error of the user becomes one line that names the key, the value and what would do."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from hydra.errors import ConfigCompositionException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue
from pydantic import ValidationError

from vrbench.extras import EXTRAS, missing, needs
from vrbench.runs.redact import hide

Settings = TypeVar("Settings")

OTHER_NAMES = {"learning_rate": "lr", "wd": "weight_decay", "steps": "max_steps", "num_epochs": "epochs"}
"""What other tools call some of our keys."""


class ConfigError(ValueError):
    """A choice that cannot be run, said in one line."""


class NotInstalled(ConfigError):
    """A part needs a library that is not installed; the line says what brings it."""


class errors_at:
    """Turn any error of the block into a ConfigError that begins with the config key at fault, if there is one."""

    def __init__(self, key: str, prefix: str = "") -> None:
        self.key = key
        self.prefix = prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, ConfigError) or not isinstance(error, Exception):
            return
        key = self.key
        wanted = missing(error)
        if isinstance(error, InstantiationException):
            found = re.search(r"full_key: (\S+)", str(error))
            key = found.group(1) if found else key
            while isinstance(error, InstantiationException) and error.__cause__ is not None:
                error = error.__cause__
        if wanted:
            raise NotInstalled(f"{key}: {wanted}" if key else wanted) from error
        message = _not_loaded(str(error)) or one_line(str(error)) or type(error).__name__
        names_argument = not self.prefix and re.match(r"\w+(\.\w+)*=", message)
        if not key:
            raise ConfigError(message) from error
        raise ConfigError(f"{key}.{message}" if names_argument else f"{key}: {self.prefix}{message}") from error


def _not_loaded(text: str) -> str:
    """Hydra's message that a target cannot be imported, with where it was looked for; empty where it is another."""
    found = re.match(r"Error loading '(?P<target>[^']+)':\n\w+\(.(?P<why>.*).\)\n", text)
    where = "looked for in this folder, in its pyproject.toml's [tool.vrbench] python-path, and in what pip installed"
    return f"_target_={found['target']}: {found['why']} ({where})" if found else ""


def checked(settings: type[Settings], values: Mapping[str, Any], prefix: str) -> Settings:
    """Build a settings dataclass; a wrong value becomes one line that names key, value and what would do."""
    try:
        return settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        given = key and first["type"] != "missing" and not isinstance(first["input"], Mapping)
        shown = f"={first['input']}" if given else ""
        raise ConfigError(f"{prefix}{key}{shown}: {message}") from error


def explain(error: Exception) -> str:
    """One line for an error of Hydra, OmegaConf or the operating system: the key, the value, what would do."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and (library := f"hydra-{choice.partition('_')[0]}-launcher") in EXTRAS:
            return f"{group}={choice}: {needs(library)}"
        return f"{group}={choice}: no such choice; {offer(choice, list(error.options), group)}"
    if isinstance(error, MissingMandatoryValue):
        key = error.full_key or text
        return f"{key}: must be given ({key}=…)"
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        parent = cause.parent_node
        siblings = [str(name) for name in parent if name != "hydra"] if isinstance(parent, DictConfig) else []
        key = cause.full_key or str(cause.key)
        above = key.rpartition(".")[0]
        if meant := _meant(str(cause.key), above, parent):
            return f"{key}: no such key; did you mean {' or '.join(meant)}?"
        return f"{key}: no such key; {offer(str(cause.key), siblings, above or 'the config')}"
    return one_line(text)


def _meant(key: str, above: str, parent: Any) -> list[str]:
    """The keys that somebody may mean who gives one that there is not: `lr` is `optimizer.lr`."""
    there = OmegaConf.to_container(parent, resolve=False) if isinstance(parent, DictConfig) else {}
    assert isinstance(there, dict)
    names = {key, OTHER_NAMES.get(key, key)}
    if here := [f"{above}.{name}".lstrip(".") for name in sorted(names) if name in there]:
        return here
    groups = {} if above else {str(group): node for group, node in there.items() if isinstance(node, dict)}
    groups.pop("hydra", None)
    return [f"{group}.{name}" for group, node in groups.items() for name in sorted(names) if name in node]


def offer(wrong: str, options: list[str], where: str) -> str:
    """What there is in place of a wrong name, the nearest first."""
    options = [option for option in options if not option.startswith("_")]
    near = difflib.get_close_matches(wrong, options, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}{where} has {', '.join(options)}" if options else f"{where} has no such thing"


def one_line(text: str) -> str:
    """The text's lines after one another; what cannot be printed (a control character, say) as Python's escapes."""
    line = re.sub(r"\s*\n\s*", "; ", text.strip())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def say(line: str, code: int) -> int:
    """Print one line to stderr, secrets hidden; returns the exit code that goes with it.

    In one write: jobs side by side share a terminal.
    """
    sys.stderr.write(f"vrbench: {one_line(hide(line))}\n")
    return code
