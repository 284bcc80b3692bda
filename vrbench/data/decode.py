"""Encoded images (JPEG, PNG, …) → one uint8 array, with a cache of the decoded pixels on disk.

Decoding 60,000 small images takes ten seconds or so, reading their pixels back a fraction of a second.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrbench.runs.records import write_whole

Pixels = NDArray[np.uint8]
_FORMAT = 1
"""Raise it when the same key would decode to other pixels."""
_CHUNK = 512
_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelFormat:
    """What decoded images look like.

    `image_size`: shorter side scaled to it (bilinear, antialiased), then the central square; None: as they are, and all
    of one size. `channels`: 1 (grey), 3 (RGB), or None: grey when the first image is, RGB otherwise.
    """

    image_size: int | None
    channels: int | None

    def __post_init__(self) -> None:
        if self.image_size is not None and (not isinstance(self.image_size, int) or self.image_size < 1):
            raise ValueError(f"image_size={self.image_size}: give at least 1 pixel, or null to keep the images' size")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels={self.channels}: give 1 (grey) or 3 (RGB), or null to take the images' own")


def decode_all(count: int, fetch: Callable[[range], list[bytes]], wanted: PixelFormat, what: str) -> Pixels:
    """Decode `count` ≥ 1 encoded images; `fetch(range)` gives the bytes of some. Returns (count, H, W, C).

    Raises ValueError, beginning with `what`, for bytes that are no image, images of more than 8 bits a channel, a
    colour image among grey ones, or images of different sizes.
    """

    def one(number: int, encoded: bytes, channels: int | None) -> Pixels:
        try:
            return _decode(encoded, channels, wanted)
        except _Unfit as error:
            raise ValueError(f"{what}: image {number} {error}") from error

    first = one(0, fetch(range(1))[0], wanted.channels)
    pixels = np.empty((count, *first.shape), dtype=np.uint8)

    def fill(numbers: range) -> None:
        for number, encoded in zip(numbers, fetch(numbers), strict=True):
            image = one(number, encoded, first.shape[2])
            if image.shape != first.shape:
                raise ValueError(
                    f"{what}: image {number} has {image.shape[0]}×{image.shape[1]} pixels and the first "
                    f"{first.shape[0]}×{first.shape[1]}; set image_size to bring them to one size"
                )
            pixels[number] = image

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))))
    return pixels


class _Unfit(Exception):
    """Why one image cannot be used."""


def _decode(encoded: bytes, channels: int | None, wanted: PixelFormat) -> Pixels:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            mode = image.mode
            if mode not in _GREY | _COLOUR:
                raise _Unfit(f"has pixels of kind {mode!r}, and 8 bits a channel are needed")
            if mode in _COLOUR and channels == 1 and wanted.channels is None:
                raise _Unfit("is in colour and the first is grey; set channels=3 (or 1)")
            if channels is None:
                channels = 1 if mode in _GREY else 3
            picture = image.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _Unfit(f"cannot be decoded ({error})") from error
    if wanted.image_size is not None:
        picture = _square(picture, wanted.image_size)
    return np.asarray(picture).reshape(picture.height, picture.width, channels)


def _square(picture, size: int):  # type: ignore[no-untyped-def]
    """Scale the shorter side of a PIL image to `size` and cut out the middle."""
    from PIL import Image

    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def cached(folder: Path, key: tuple[object, ...], make: Callable[[], Pixels]) -> Pixels:
    """`make()`, or what an earlier process got from it under the same key.

    The file appears in `folder` whole or not at all. A folder that cannot be written to and a file that cannot be read
    cost a warning and the time to decode, nothing more.
    """
    name = hashlib.blake2s(repr((_FORMAT, *key)).encode(), digest_size=16).hexdigest()
    path = folder / f"{name}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        log.warning("cached images %s are unreadable (%s): decoding again", path, error)
    pixels = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: np.save(file, pixels))
    except OSError as error:
        log.warning("decoded images are not cached in %s (%s): the next start decodes again", folder, error.strerror)
    return pixels
