"""torch's compiler, imported when something compiles: not because an optimizer steps.

Every step of an optimizer of torch's kind says `import torch._dynamo`, to break the graph of a step that is being
compiled, and the methods that the compiler is to leave alone import it, too. That is longer than many a run trains. A
stand-in answers those two calls, which do nothing in a step that nobody compiles; for whatever else is asked of it, or
imported from it, the compiler itself is loaded and takes its place.
"""

from __future__ import annotations

import functools
import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

COMPILER = "torch._dynamo"


def wait_for_compiler() -> None:
    """Until something compiles, steps do without torch's compiler; where it is loaded already, nothing changes."""
    if COMPILER not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _StandIn(ModuleType):
    """The two functions that an uncompiled step calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # a package, whose modules `_Finder` finds

    @staticmethod
    def graph_break(*_: Any, **__: Any) -> None:
        """There is no graph."""

    @staticmethod
    def disable(work: Any = None, *options: Any, **named: Any) -> Any:
        """A function as it is; once the compiler is loaded, as it disables it."""
        if not isinstance(work, FunctionType):
            return _load().disable(work, *options, **named)

        @functools.wraps(work)
        def left_alone(*arguments: Any, **keywords: Any) -> Any:
            compiler = sys.modules[COMPILER]
            called = work if isinstance(compiler, _StandIn) else compiler.disable(work, *options, **named)
            return called(*arguments, **keywords)

        return left_alone

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # whoever walks through all modules asks each for its file
            raise AttributeError(name)
        return getattr(_load(), name)


class _Finder(MetaPathFinder, Loader):
    """Finds the stand-in, once; and what is imported from within the compiler while it stands: that loads it."""

    def __init__(self) -> None:
        self._found = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As `importlib` asks every finder."""
        if name == COMPILER and not self._found:
            self._found = True
            return ModuleSpec(name, self)
        if name.startswith(f"{COMPILER}.") and isinstance(sys.modules.get(COMPILER), _StandIn):
            _load()
            module = importlib.import_module(name)
            del sys.modules[name]  # whoever asked puts it there again; one that is there would be executed once more
            return ModuleSpec(name, self, loader_state=(module, module.__spec__))
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A stand-in, or the module that is loaded already."""
        if spec.name == COMPILER:
            return _StandIn(spec.name)
        module: ModuleType = spec.loader_state[0]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to be done; a module that was loaded keeps the spec that it was loaded by."""
        spec = module.__spec__
        if spec is not None and spec.loader is self and spec.loader_state is not None:
            module.__spec__ = spec.loader_state[1]


def _load() -> Any:
    """The compiler, in the stand-in's place."""
    if isinstance(sys.modules.get(COMPILER), _StandIn):
        del sys.modules[COMPILER]
    return importlib.import_module(COMPILER)
