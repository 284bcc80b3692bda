"""Encoded images (JPEG, PNG, …) → one uint8 array, with a cache of the decoded pixels on disk.

Decoding 60,000 small images takes ten seconds or so, reading their pixels back a fraction of a second.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from vrbench.data.pixels import PixelFormat, Pixels, Unfit, decode
from vrbench.runs.records import write_whole

_FORMAT = 2
"""Raise it when the same key would decode to other pixels."""
_CHUNK = 512
MAPPED = 2 * 10**9
"""Bytes of pixels above which a split is mapped from its file and not read into memory."""

log = logging.getLogger(__name__)


def decode_all(
    count: int,
    fetch: Callable[[range], Sequence[bytes | None]],
    wanted: PixelFormat,
    what: str,
    name: Callable[[int], str],
    empty: Callable[[tuple[int, ...]], Pixels],
) -> Pixels:
    """Decode `count` ≥ 1 encoded images; `fetch(range)` gives the bytes of some. Returns (count, H, W, C), an array
    that `empty(shape)` has made.

    `name(number)` says which image that is: its file, or its row. Raises ValueError, beginning with `what`, for an
    image that cannot be used (vrbench.data.pixels) or is of another size than the first. Where files hold several
    frames a warning says that the first is taken.
    """
    moving: list[int] = []

    def one(number: int, encoded: bytes | None, channels: int | None) -> Pixels:
        try:
            pixels, frames = decode(encoded, channels, wanted)
        except Unfit as error:
            raise ValueError(f"{what}: {name(number)} {error}") from error
        if frames > 1:
            moving.append(number)
        return pixels

    first = one(0, fetch(range(1))[0], wanted.channels)
    moving.clear()
    pixels = empty((count, *first.shape))

    def fill(numbers: range) -> None:
        for number, encoded in zip(numbers, fetch(numbers), strict=True):
            image = one(number, encoded, first.shape[2])
            if image.shape != first.shape:
                raise ValueError(
                    f"{what}: {name(number)} has {image.shape[0]}×{image.shape[1]} pixels and {name(0)} "
                    f"{first.shape[0]}×{first.shape[1]}; set image_size to bring them to one size"
                )
            pixels[number] = image

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))))
    if moving:
        which = name(min(moving)) if len(moving) == 1 else f"{len(moving)} images ({name(min(moving))}, …)"
        warnings.warn(f"{what}: the first frame is taken of {which}", stacklevel=2)
    return pixels


def cached(
    folder: Path, key: tuple[object, ...], make: Callable[[Callable[[tuple[int, ...]], Pixels]], Pixels]
) -> Pixels:
    """`make(empty)`, or what an earlier process got from it under the same key; `empty(shape)` is an array to fill.

    More than `MAPPED` bytes never lie in memory: they are written to a file, and mapped from it. The file appears in
    `folder` whole or not at all. A folder that cannot be written to and a file that cannot be read cost a warning and
    the time to decode, nothing more.
    """
    name = hashlib.blake2s(repr((_FORMAT, *key)).encode(), digest_size=16).hexdigest()
    path = folder / f"{name}.npy"
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        log.warning("cached images %s are unreadable (%s): decoding again", path, error)
    unfinished = path.with_name(f"{name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        pixels = make(partial(_empty, unfinished))
        try:
            if isinstance(pixels, np.memmap):
                pixels.flush()
                os.replace(unfinished, path)
                return _load(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda file: np.save(file, pixels))
        except OSError as error:
            _not_cached(folder, error)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return pixels


def _load(path: Path) -> Pixels:
    """The array of a file, mapped where it is large; pages that are written to are private."""
    pixels: Pixels = np.load(path, mmap_mode="c" if path.stat().st_size > MAPPED else None, allow_pickle=False)
    return pixels


def _empty(path: Path, shape: tuple[int, ...]) -> Pixels:
    """An array to fill: in memory, or where it is large in a file, whose place on the disk is taken at once."""
    if math.prod(shape) > MAPPED:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels: Pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):  # a full disk would end the process in the middle
                with open(path, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return pixels
        except OSError as error:
            _not_cached(path.parent, error)
    return np.empty(shape, np.uint8)


def _not_cached(folder: Path, error: OSError) -> None:
    log.warning("decoded images are not cached in %s (%s): the next start decodes again", folder, error.strerror)
