"""The words of the command line before Hydra reads them: put in its order; where they are wrong, one line says so."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from vrbench.app.refusals import say

PLACE = "results_dir=~"
WRONG = 2


def read(words: Sequence[str]) -> list[str]:
    """The words as Hydra can read them: options first, overrides on both sides of them allowed, `~` in `results_dir`.

    Ends the process for `--version`, and with one line for options that there are not.
    """
    if "--version" in words:
        print(f"vrbench {version('vrbench')}")
        sys.exit(0)
    parser = get_args_parser()
    parser.error = lambda message: sys.exit(say(f"{message} (--help lists the options)", WRONG))  # type: ignore
    overrides = parser.parse_intermixed_args(list(words)).overrides
    options = list(words)
    for word in overrides:
        options.remove(word)
    at_home = {word: f"results_dir={_quoted(str(Path(word.partition('=')[2]).expanduser()))}" for word in overrides
               if word.startswith(PLACE)}  # fmt: skip
    return [*options, *(at_home.get(word, word) for word in overrides)]


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
            return f"{word}: several values are a multirun: vrbench -m {word} …; for one list write [a,b]"
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
