"""vrbench: is this optimizer better on my task, and why?"""

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).parent
if not (_HERE / "optimizers").is_dir():  # a checkout: optimizers/ and tasks/ lie beside this folder, and not inside it
    __path__.append(str(_HERE.parent))
