"""The words of the command line before Hydra reads them: put in its order; where they are wrong, one line says so."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from vrbench.app import project
from vrbench.app.refusals import explain, say

PLACE = "results_dir=~"
WRONG = 2


def read(words: Sequence[str]) -> list[str]:
    """The words as Hydra can read them: options first, overrides on both sides of them allowed, `~` in `results_dir`.

    Every `--config-dir` is taken out, and used beside the project's own folders: Hydra takes the last one alone.
    Ends the process for `--version`, and with one line for options that there are not; raises ConfigError for a folder
    that there is not.
    """
    if "--version" in words:
        print(f"vrbench {version('vrbench')}")
        sys.exit(0)
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--config-dir", "-cd", action="append", default=[], type=Path)
    parser = get_args_parser()
    own.error = parser.error = lambda message: sys.exit(say(f"{message} (--help lists the options)", WRONG))  # type: ignore
    given, options = own.parse_known_args(list(words))
    overrides = parser.parse_intermixed_args(options).overrides
    for word in overrides:
        options.remove(word)
    project.use(project.config_dirs(given.config_dir))
    return [*options, *map(at_home, overrides)]


def at_home(word: str) -> str:
    """An override; in `results_dir=~/runs` the folder is the one that a shell means by it."""
    if not word.startswith(PLACE):
        return word
    return f"results_dir={_quoted(str(Path(word.partition('=')[2]).expanduser()))}"


def told(error: Exception, words: Sequence[str]) -> str:
    """One line for an error of Hydra, OmegaConf or the system that came of these words, on the way to a config."""
    of_a_name = isinstance(error, MissingConfigException) or isinstance(error.__cause__, OmegaConfBaseException)
    unread = isinstance(error, HydraException) and not of_a_name
    return (fault(words) if unread else "") or explain(error) or type(error).__name__


def fault(words: Sequence[str]) -> str:
    """What is wrong with the overrides as a person typed them, and what would do; empty where nothing is.

    To be asked once Hydra has refused them: an experiment may make a multirun of a command without `-m`.
    """
    given = get_args_parser().parse_args(list(words))
    parser = OverridesParser.create()
    for word in given.overrides:
        try:
            override = parser.parse_override(word)
        except HydraException:
            return f"{word}: cannot be read{_way_out(word, parser)}"
        if override.is_sweep_override() and not given.multirun:
            way = f"vrbench -m {word} … (vrbench.sweep in Python)"
            return f"{word}: several values are a multirun: {way}; for one list write [a,b]"
    return ""


def _way_out(word: str, parser: OverridesParser) -> str:
    """How the word is to be quoted, where that makes it one that can be read."""
    key, equals, value = word.partition("=")
    quoted = f"{key}={_quoted(value)}"
    try:
        parser.parse_override(quoted)
    except HydraException:
        return ", nor is it key=value" if not equals else ""
    return f': quote the value, for the shell too: "{quoted}"'


def _quoted(value: str) -> str:
    """A value that Hydra takes for one text, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
