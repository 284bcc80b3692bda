"""The state of an unfinished run on disk: the last two checkpoints, written whole, checked by a hash, free of pickle.

A file is what torch.save writes, and behind it eight bytes of mark and the BLAKE2b hash of all that comes before them.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from vrbench.runs.records import write_whole

FILE = "state.pt"
BEFORE = "state-before.pt"

_MARK = b"vrbench1"
_DIGEST = 32
_CHUNK = 2**20

State = dict[str, Any]


def save(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state (tensors and plain values) to `folder`; the newest checkpoint so far becomes the one before.

    Raises OSError; then the checkpoints are as they were.
    """
    write_whole(folder / FILE, lambda file: _write(state, file), former=folder / BEFORE)


def load(folder: Path, check: Callable[[State], None]) -> tuple[State | None, dict[str, str]]:
    """Return the newest state that can be used, on the CPU (None: there is none), and why newer files cannot.

    `check` raises ValueError for a state that does not fit the run's other records. Reasons come by file name. Raises
    OSError where a file is there and may not be read.
    """
    wrong: dict[str, str] = {}
    for name in (FILE, BEFORE):
        try:
            state = _read(folder / name)
            check(state)
        except FileNotFoundError:
            continue
        except ValueError as error:
            wrong[name] = str(error)
            continue
        return state, wrong
    return None, wrong


def set_aside(folder: Path, name: str) -> None:
    """Rename a file that cannot be used, so that no later checkpoint pushes out a good one for it."""
    os.replace(folder / name, folder / f"damaged-{name}")


def discard(folder: Path) -> None:
    """Remove the checkpoint folder of a run that is over."""
    shutil.rmtree(folder, ignore_errors=True)


class _Hashed:
    """A file to write to that keeps a hash, and the error that torch.save covers with one of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.blake2b(digest_size=_DIGEST)
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write and hash."""
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.hash.update(data)
        return len(data)

    def flush(self) -> None:
        """What torch.save asks of a file."""
        self._file.flush()


def _write(state: Mapping[str, Any], file: IO[bytes]) -> None:
    import torch

    hashed = _Hashed(file)
    try:
        torch.save(dict(state), hashed)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise (hashed.error or error) from None
    file.write(_MARK + hashed.hash.digest())


def _read(path: Path) -> State:
    """Raises ValueError for a file that is not what `_write` made, or holds more than tensors and plain values."""
    import torch

    try:
        with open(path, "rb") as file:
            _verify(file)
            file.seek(0)
            state: State = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise ValueError("the disk cannot read it") from error
    except ValueError:
        raise
    except Exception as error:  # pickle's and zip's errors are of any type
        reason = str(error).strip().splitlines()
        raise ValueError(f"not tensors and plain values ({reason[0] if reason else type(error).__name__})") from error
    return state


def _verify(file: IO[bytes]) -> None:
    left = os.fstat(file.fileno()).st_size - len(_MARK) - _DIGEST
    found = hashlib.blake2b(digest_size=_DIGEST)
    while left > 0:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            break
        found.update(chunk)
        left -= len(chunk)
    if left != 0 or file.read(len(_MARK)) != _MARK:
        raise ValueError("cut short, or not a checkpoint of this version")
    if not hmac.compare_digest(file.read(), found.digest()):
        raise ValueError("its bytes are not those that were written")
