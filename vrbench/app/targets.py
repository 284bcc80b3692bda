"""What a config may build with `_target_`: hydra refuses much by itself; this adds a rule short enough to state.

Nothing of Python's standard library (os.system, builtins.eval, subprocess.run, …) and nothing that loads pickles or
compiles code, by whatever name it is reached. This stops the known tricks of a hostile YAML. It does not make a config
safe that names a module of its author's: a config chooses code, so take configs from people whose code you would run.
"""

from __future__ import annotations

import inspect
import pkgutil
import sys
from collections.abc import Mapping
from typing import Any

from vrbench.runs.renamed import new_name

LOADERS = (
    "torch.serialization",
    "torch.hub",
    "torch.package",
    "torch.utils.cpp_extension",
    "numpy.load",
    "numpy.lib",
    "pandas.io",
    "joblib",
    "dill",
    "cloudpickle",
    "yaml",
    "pip",
    "setuptools",
    "hydra.utils.call",
    "hydra.utils.instantiate",
    "hydra._internal",
)
"""Modules and functions outside the standard library that run or load code."""


def check(node: Any, key: str = "") -> None:
    """Raises ValueError, beginning with the key, for a forbidden `_target_` anywhere in a plain config.

    And for one that has another name today, and for an argument that its target annotates as bool and that is none:
    python takes any word for true, or breaks far away. A target that cannot be imported is left to hydra, which says
    so.
    """
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and (name := new_name(target)):
            raise ValueError(f"{key}._target_={target}: is called {name} today".lstrip("."))
        if isinstance(target, str) and (reason := _forbidden(target)):
            raise ValueError(f"{key}._target_={target}: {reason}".lstrip("."))
        if isinstance(target, str) and (reason := _wrong_flag(target, node)):
            raise ValueError(f"{key}.{reason}".lstrip("."))
        for name, child in node.items():
            check(child, f"{key}.{name}")
    elif isinstance(node, (list, tuple)):
        for number, child in enumerate(node):
            check(child, f"{key}.{number}")


def _forbidden(target: str) -> str | None:
    names = {target}
    if target.split(".")[0] not in sys.stdlib_module_names:
        try:
            found = pkgutil.resolve_name(target)
        except Exception:
            return None  # hydra will meet the same, and say why
        module = getattr(found, "__module__", None) or type(found).__module__
        names.add(f"{module}.{getattr(found, '__qualname__', '')}")
    for name in names:
        if name.split(".")[0] in sys.stdlib_module_names:
            return "is of Python's standard library, which a config may not call"
        if any(f"{name}.".startswith(f"{loader}.") for loader in LOADERS):
            return "loads or runs code, which a config may not ask for"
    return None


def _wrong_flag(target: str, arguments: Mapping[str, Any]) -> str | None:
    try:
        found = pkgutil.resolve_name(target)
        parameters = inspect.signature(found, eval_str=True).parameters
    except Exception:
        return None  # hydra will meet the same, or there is no signature to go by
    for name, value in arguments.items():
        hint = parameters[name].annotation if name in parameters else None
        optional = hint == bool | None
        if (optional or hint is bool) and not isinstance(value, bool) and not (optional and value is None):
            return f"{name}={value}: should be true{', false or null' if optional else ' or false'}"
    return None
