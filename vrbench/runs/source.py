"""The code that a config names with `_target_`: where its source lies, a hash of it, and the types of its arguments.

Nothing is imported: modules are found as Python would find them, and their source is read. So a finished run can be
skipped, and its code be compared with today's, in milliseconds.

A module of the user's project, or of a checkout of vrbench, counts with every other module of a project that it
imports, directly or not. An installed library counts by its version and the file that holds the target.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

LOOP = (
    "vrbench.training.trainer",
    "vrbench.randomness",
    "vrbench.training.distributed",
    "vrbench.training.capabilities",
    "vrbench.training.schedules",
    "vrbench.norms",
    "vrbench.training.recalibration",
)
"""Modules that decide a run's numbers and that no `_target_` names."""

_BY_NAME = ("hydra.utils.get_class", "hydra.utils.get_method", "hydra.utils.get_object")
_BUILT_IN = frozenset(dir(builtins))
_ASSIGNS = (ast.Assign, ast.AnnAssign)
_BLOCKS = ("body", "handlers", "cases", "orelse", "finalbody")
"""Where a node holds statements, in the order in which they are written."""
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_DEEPEST = 8
"""Re-exports that a name is followed through."""


@dataclass(frozen=True)
class Module:
    """A module as it is found without being imported."""

    name: str
    file: Path
    is_package: bool

    @property
    def key(self) -> str:
        """Its path relative to where it is imported from: `optimizers/vradam.py`."""
        path = self.name.replace(".", "/")
        return f"{path}/__init__{self.file.suffix}" if self.is_package else path + self.file.suffix

    @property
    def is_library(self) -> bool:
        """Whether it belongs to an installed distribution or to Python itself."""
        places = {"site-packages", "dist-packages"} & set(self.file.parts)
        return bool(places) or self.file.is_relative_to(_STANDARD_LIBRARY)


# ---- what ran -------------------------------------------------------------------------------------------------------


def code_of(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """`{"files": {"optimizers/vradam.py": hash}, "libraries": {"torch": "2.14.1"}}` of all that the config builds.

    Loggers are left out. A target that cannot be found is left out too: building it will say so.
    """
    files: dict[str, str] = {}
    libraries: dict[str, str] = {}
    for target in dict.fromkeys([*_targets({k: v for k, v in config.items() if k != "logger"}), *LOOP]):
        for module in _modules_of(target):
            files[module.key] = _source(module).digest
            top = module.name.split(".")[0]
            if module.is_library and (found := _version(top)):
                libraries[top] = found
    return {"files": dict(sorted(files.items())), "libraries": dict(sorted(libraries.items()))}


def changed_since(code: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What of `code_of`'s answer is not so any more: `optimizers/vradam.py`, `torch 2.14.1 → 2.15.0`.

    What cannot be found here (a project that lies elsewhere, a library that is not installed) is not known to have
    changed.
    """
    found = []
    moved = set()
    for top, before in code.get("libraries", {}).items():
        now = _version(top)
        if now is not None and now != before:
            moved.add(top)
            found.append(f"{top} {before} → {now}")
    for key, before in code.get("files", {}).items():
        module = find_module(_name(key))
        if module is None or key.split("/")[0] in moved or module.key != key:
            continue
        if _source(module).digest != before:
            found.append(key)
    return found


_loaded: dict[tuple[str, Path], _Source] = {}
"""Source of modules as it was before this process imported them: an edit since is not what it runs."""


def _source(module: Module) -> _Source:
    place = module.name, module.file
    if module.name not in sys.modules or place not in _loaded:
        _loaded[place] = _scan(str(module.file), *_stamp(module.file))
    return _loaded[place]


def _name(key: str) -> str:
    parts = Path(key).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target in _BY_NAME:
            target = node.get("path")
        if isinstance(target, str):
            yield target
        for child in node.values():
            yield from _targets(child)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _targets(child)


def _modules_of(target: str) -> list[Module]:
    """The module that a target is named by, the one that defines it, and what these import from projects."""
    named = _split(target)
    if named is None:
        return []
    module, attributes = named
    begin = [module]
    if attributes and (defined := _definition(module, attributes[0])):
        begin.append(defined[0])
    if module.is_library:  # the name may only be re-exported there
        return begin[-1:]
    if target in LOOP:
        return begin
    found: dict[str, Module] = {}
    stack = [one for one in begin if not one.is_library]
    while stack:
        one = stack.pop()
        if one.name in found:
            continue
        found[one.name] = one
        for name in _source(one).imports_of(one):
            other = find_module(name)
            if other is not None and not other.is_library:
                stack.append(other)
    return [*found.values(), *(one for one in begin if one.is_library)]


@lru_cache
def _version(top: str) -> str | None:
    """The version of the distribution that an installed top-level module belongs to."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(top)
    for distribution in _distributions().get(top, []):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(distribution)
    return None


@lru_cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


# ---- modules without importing them ---------------------------------------------------------------------------------


def find_module(name: str) -> Module | None:
    """The module as Python would find it, its parents not imported; None where there is no source or binary file."""
    spec = None
    where: Any = None
    for depth, _ in enumerate(parts := name.split("."), 1):
        part = ".".join(parts[:depth])
        try:
            spec = (
                importlib.util.find_spec(part) if depth == 1 else importlib.machinery.PathFinder.find_spec(part, where)
            )
        except KeyError:  # a package without __init__.py, in a package that is not imported
            spec = None
            where = [below for folder in where if os.path.isdir(below := os.path.join(folder, parts[depth - 1]))]
            continue
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is None:
            return None
        where = spec.submodule_search_locations
        if where is None and depth < len(parts):
            return None
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return None
    return Module(name, Path(spec.origin), where is not None)


def _split(target: str) -> tuple[Module, list[str]] | None:
    """The module that a dotted name begins with, and the attributes that are left."""
    parts = target.split(".")
    for length in range(len(parts), 0, -1):
        module = find_module(".".join(parts[:length]))
        if module is not None:
            return module, parts[length:]
    return None


@dataclass(frozen=True)
class _Source:
    """What is read of one file."""

    digest: str
    tree: ast.Module | None

    @cached_property
    def named(self) -> dict[str, list[Any]]:
        """The nodes that define, assign or import each name of the module, in the order they are met; star imports
        under `*`. What a function calls its own is not the module's."""
        found: dict[str, list[Any]] = {}
        for node in _running(self.tree, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names: list[str] = []
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                names = [node.name]
            elif isinstance(node, _ASSIGNS) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [target.id for target in targets if isinstance(target, ast.Name)]
            elif isinstance(node, ast.ImportFrom):
                names = [alias.asname or alias.name for alias in node.names]
            for name in dict.fromkeys(names):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def imports(self) -> list[ast.Import | ast.ImportFrom]:
        """Its import statements, those of functions among them."""
        return [node for node in _running(self.tree) if isinstance(node, (ast.Import, ast.ImportFrom))]

    def imports_of(self, module: Module) -> list[str]:
        """Full names of modules that may be imported when the module is, and the packages around them."""
        names: dict[str, None] = {}
        package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
        names.update(dict.fromkeys(".".join(package[:length]) for length in range(1, len(package) + 1)))
        for node in self.imports:
            if isinstance(node, ast.Import):
                names.update(dict.fromkeys(alias.name for alias in node.names))
            else:
                base = _absolute(module, node)
                names[base] = None
                names.update(dict.fromkeys(f"{base}.{alias.name}" for alias in node.names))
        return [name for name in names if name]


def _running(tree: ast.AST | None, closed: tuple[type[ast.AST], ...] = ()) -> Iterator[ast.AST]:
    """Every statement but those that only a type checker reads, and those inside a node of a `closed` type; no
    expression, of which there are many more."""
    stack = [] if tree is None else [tree]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack.extend(node.orelse)
        elif not isinstance(node, closed):
            for block in _BLOCKS:
                stack.extend(getattr(node, block, ()))


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *(node.module.split(".") if node.module else [])])


def _stamp(file: Path) -> tuple[int, int, int]:
    state = os.stat(file)
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


@lru_cache(maxsize=1024)
def _scan(file: str, *stamp: int) -> _Source:
    """Read a file; `stamp` tells the memory that it is another one now."""
    content = Path(file).read_bytes()
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    try:
        return _Source(digest, ast.parse(content) if file.endswith(".py") else None)
    except (SyntaxError, ValueError):
        return _Source(digest, None)


# ---- what a target takes --------------------------------------------------------------------------------------------


def numbers_typed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Whole numbers that a target annotates as float, as floats, and floats without a fraction that it annotates as
    int, as ints: `{"optimizer.weight_decay": 0.0}` for `0`. Only keys that change are told, written with dots."""
    return dict(_typed(config, ""))


def _typed(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        return
    target = node.get("_target_")
    hints = argument_types(target) if isinstance(target, str) else {}
    for name, value in node.items():
        inner = f"{key}.{name}" if key else str(name)
        changed = _cast(value, hints.get(str(name), frozenset()))
        if repr(changed) != repr(value):
            yield inner, changed
        else:
            yield from _typed(value, inner)


def _cast(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, list):
        return [_cast(item, names) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or "bool" in names:
        return value
    if "float" in names and "int" not in names:
        return float(value)
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if "int" in names and "float" not in names and whole else value


def argument_types(target: str) -> dict[str, frozenset[str]]:
    """For each argument of a class or function the names in its annotation: `{"lr": {"float", "Tensor"}}`."""
    named = _split(target)
    if named is None or len(named[1]) != 1:
        return {}
    defined = _definition(named[0], named[1][0])
    return _arguments(*defined) if defined and not isinstance(defined[1], _ASSIGNS) else {}


def _arguments(module: Module, node: Any, depth: int = 0) -> dict[str, frozenset[str]]:
    if isinstance(node, ast.FunctionDef):
        spec = node.args
        arguments = (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)
        return {a.arg: _names(module, a.annotation) for a in arguments if a.annotation}
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return _arguments(module, inner)
    if any("dataclass" in ast.dump(decorator) for decorator in node.decorator_list):
        fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
        return {f.target.id: _names(module, f.annotation) for f in fields if isinstance(f.target, ast.Name)}
    for base in node.bases:
        defined = _definition(module, base.id) if isinstance(base, ast.Name) and depth < _DEEPEST else None
        if defined and isinstance(defined[1], ast.ClassDef) and (found := _arguments(*defined, depth + 1)):
            return found
    return {}


def _names(module: Module, annotation: ast.expr, depth: int = 0) -> frozenset[str]:
    """The names in an annotation, those in what an alias (`Betas = tuple[float, float]`) stands for among them."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    found = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    for name in sorted(found - _BUILT_IN) if depth < _DEEPEST else ():
        defined = _definition(module, name)
        alias = getattr(defined[1], "value", None) if defined is not None else None
        if defined is not None and alias is not None:
            found |= _names(defined[0], alias, depth + 1)
    return frozenset(found)


def _definition(module: Module, name: str, depth: int = 0) -> tuple[Module, Any] | None:
    """The class, function or assignment of this name, followed through imports, and the module that it stands in."""
    if depth > _DEEPEST:
        return None
    source = _scan(str(module.file), *_stamp(module.file))
    for node in source.named.get(name, ()):
        if not isinstance(node, ast.ImportFrom):
            return module, node
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        other = find_module(_absolute(module, node))
        found = _definition(other, original, depth + 1) if other else None
        if found is not None:
            return found
    for node in source.named.get("*", ()):
        other = find_module(_absolute(module, node))
        if other is not None and (found := _definition(other, name, depth + 1)):
            return found
    return None
