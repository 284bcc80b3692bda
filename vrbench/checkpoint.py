"""The state of an unfinished run on disk: written whole, loaded without pickle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from vrbench.records import write_whole

FILE = "state.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write the state (tensors and plain values) to `folder`, replacing the one before. Raises OSError."""
    import torch

    write_whole(folder / FILE, lambda file: torch.save(state, file))


def load(folder: Path) -> dict[str, Any] | None:
    """Return the saved state on the CPU, or None where there is none.

    Raises ValueError where the file cannot be read as tensors and plain values.
    """
    import torch

    path = folder / FILE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: unreadable checkpoint ({reason}); delete it to start the run afresh") from error
    return state


def discard(folder: Path) -> None:
    """Remove the checkpoint folder of a run that is over."""
    shutil.rmtree(folder, ignore_errors=True)
