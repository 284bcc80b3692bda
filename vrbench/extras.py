"""Optional libraries: which extra brings one that is missing, in words that work where the user is."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

EXTRAS = {
    "diffusers": "diffusion",
    "hydra-joblib-launcher": "launchers",
    "hydra-submitit-launcher": "launchers",
    "optuna": "search",
    "pytorch-optimizer": "baselines",
    "ray": "ray",
    "torchmetrics": "diffusion",
    "transformers": "text",
    "wandb-workspaces": "workspace",
}
"""Libraries that may be missing, as pip calls them, and the extra of vrbench that brings each."""

_PACKAGE = Path(__file__).parent


def needs(library: str) -> str:
    """`needs diffusers: pip install 'vrbench[diffusion]'`, for one of `EXTRAS`; `-e '.[diffusion]'` in a checkout."""
    editable, source = "", "vrbench"
    if not (_PACKAGE / "conf").is_dir():  # it lies beside the package: a checkout
        editable, source = "-e ", "." if _PACKAGE.parent == Path.cwd() else str(_PACKAGE.parent)
    return f"needs {library}: pip install {editable}{shlex.quote(f'{source}[{EXTRAS[library]}]')}"


def missing(error: BaseException) -> str | None:
    """What `needs` says where an error comes of a missing library of `EXTRAS`; None for every other error.

    The error itself counts, and those that it was raised from.
    """
    for one in chain(error):
        if isinstance(one, ModuleNotFoundError):
            library = (one.name or "").partition(".")[0].replace("_", "-")
            if library in EXTRAS:
                return needs(library)
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from, each once."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__
