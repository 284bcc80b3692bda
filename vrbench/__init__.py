"""vrbench: is this optimizer better on my task, and why?

    import vrbench

    vrbench.sweep(["task=digits", "optimizer=vradam,adamw", "seed=range(8)"])
    runs = vrbench.load("results/runs/default")
    print(vrbench.compare(runs, "vradam", "adamw"))

docs/python.md has all of it. What is named here is imported when it is first used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrbench.app.interface import check, run, sweep
    from vrbench.report.loading import Runs, load
    from vrbench.report.verdicts import Verdicts, compare
    from vrbench.runs.records import Run

__version__ = "0.1.0"
__all__ = ["Run", "Runs", "Verdicts", "check", "compare", "load", "run", "sweep"]

_HERE = Path(__file__).parent
if not (_HERE / "optimizers").is_dir():  # a checkout: optimizers/ and tasks/ lie beside this folder, and not inside it
    __path__.append(str(_HERE.parent))

_HOMES = {
    "check": "vrbench.app.interface",
    "run": "vrbench.app.interface",
    "sweep": "vrbench.app.interface",
    "Runs": "vrbench.report.loading",
    "load": "vrbench.report.loading",
    "Verdicts": "vrbench.report.verdicts",
    "compare": "vrbench.report.verdicts",
    "Run": "vrbench.runs.records",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
