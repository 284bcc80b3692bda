"""One image file's bytes → 8-bit grey or RGB pixels: what each kind of file comes to, and why one is refused.

Pictures stand as their EXIF says. Transparent pixels are laid on white (a plain conversion, which torchvision's
ImageFolder makes, would show whatever colour lies hidden there). 16-bit grey is brought to 8 bits by its type's range,
0 … 65535, whatever part of it the picture uses. Of an animation or of several pages the first is taken.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

DEEP = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes of grey with more than 8 bits; it reads `I` from 16-bit files too."""
GREY = frozenset({"1", "L", "LA"}) | DEEP
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
_DAMAGED = (OSError, SyntaxError, ValueError, LookupError, EOFError, TypeError, struct.error, zlib.error)
"""What Pillow's readers raise for bytes that are not what they seem."""


class Unfit(Exception):
    """Why one image cannot be used, as the end of a sentence that begins with its name."""


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


def decode(encoded: bytes | None, channels: int | None, wanted: PixelFormat) -> tuple[Pixels, int]:
    """Pixels (H, W, C) and the number of frames that the file holds; `channels` is that of the images before, if any.

    Raises Unfit where the bytes are missing, damaged, no image, or of a kind that has no one meaning in 8 bits, and for
    a colour image among grey ones unless `wanted.channels` says what they all are.
    """
    from PIL import Image, UnidentifiedImageError

    if encoded is None:
        raise Unfit("has no image")
    if not encoded:
        raise Unfit("is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            grey = image.mode in GREY
            if not grey and image.mode not in COLOUR:
                raise Unfit(f"has pixels of kind {image.mode!r}; save it as grey or RGB, 8 or 16 bits a channel")
            if not grey and channels == 1 and wanted.channels is None:
                raise Unfit("is in colour and the first is grey; set channels=3 (or 1)")
            if channels is None:
                channels = 1 if grey else 3
            picture = _upright(_eight_bits(image), image).convert("L" if channels == 1 else "RGB")
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: previews of one photograph
    except UnidentifiedImageError as error:
        raise Unfit("is not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise Unfit("is larger than Pillow reads") from error
    except _DAMAGED as error:
        truncated = "truncated" in str(error).lower()
        raise Unfit("is truncated" if truncated else f"cannot be decoded ({error})") from error
    if wanted.image_size is not None:
        picture = _square(picture, wanted.image_size)
    return np.asarray(picture).reshape(picture.height, picture.width, channels), frames


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in 8 bits a channel, without transparency."""
    from PIL import Image

    if image.mode in DEEP:
        values = np.asarray(image).astype(np.int64)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise Unfit(f"has 32-bit pixels from {low} to {high}; save it with 8 or 16 bits a channel")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257, to the nearest
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def _upright(picture: Image.Image, image: Image.Image) -> Image.Image:
    """The picture, made from the image, turned and mirrored as the image's EXIF says; unreadable EXIF says nothing."""
    from PIL import ExifTags, Image

    turns = Image.Transpose
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED:
        return picture
    turn = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _square(picture: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side of a picture to `size` and cut out the middle."""
    from PIL import Image

    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
