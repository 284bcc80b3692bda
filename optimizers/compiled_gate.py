"""The gate's norm in one compiled pass over velocities and gradients, by numba: `pip install 'vrbench[fast]'`.

torch has no operation that reads v and g and gives sum |v + w (g - v)|^2, so `gate.py` writes each piece of the blend
to a buffer and reads it again; here it stays in the processor's registers. This module imports numba: `gate.py` imports
it where numba is installed, and does without it elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

PIECE = 1 << 15
"""Elements that a thread takes at a time."""
BLOCK = 1 << 11
"""Elements that are added up in the tensors' own precision, in several partial sums; blocks add up in float64."""

_settings: Any = numba.config
if _settings.THREADING_LAYER == "default":
    _settings.THREADING_LAYER = "threadsafe"  # two threads may step at once; without such a layer it cannot run


def square_sum(rows: Sequence[tuple[Tensor, ...]], weight: float) -> Tensor:
    """sum |v + weight (g - v)|^2 over pairs (v, g), a float64 scalar.

    All are on the CPU, contiguous, and of one type, float32 or float64. Raises ValueError where numba finds no threads
    that it may use.
    """
    pieces = [
        (v.data_ptr() + begin * v.itemsize, g.data_ptr() + begin * g.itemsize, min(PIECE, v.numel() - begin))
        for v, g in rows
        for begin in range(0, v.numel(), PIECE)
    ]
    sums = np.zeros(len(pieces))
    like = np.empty(0, np.float32 if rows[0][0].dtype == torch.float32 else np.float64)
    numba.set_num_threads(min(torch.get_num_threads(), _settings.NUMBA_NUM_THREADS))
    _add_up(np.array(pieces, np.int64).reshape(-1, 3), like.dtype.type(weight), like, sums)
    return torch.tensor(sums.sum(), dtype=torch.float64)


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    """The address as a pointer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(parallel=True, nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})  # NaN stays NaN
def _add_up(pieces: Any, weight: Any, like: Any, sums: Any) -> None:
    for number in numba.prange(len(pieces)):
        count = pieces[number, 2]
        v = numba.carray(_pointer(pieces[number, 0]), count, like.dtype)  # type: ignore[call-arg]
        g = numba.carray(_pointer(pieces[number, 1]), count, like.dtype)
        for begin in range(0, count, BLOCK):
            total = weight - weight
            for i in range(begin, min(begin + BLOCK, count)):
                blend = v[i] + weight * (g[i] - v[i])
                total += blend * blend
            sums[number] += total
