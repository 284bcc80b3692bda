"""One image file: what each kind comes to in 8 bits, and what is refused with its reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from small_images import encode, numbered

from vrbench.data.pixels import PixelFormat, Unfit, decode

AS_THEY_ARE = PixelFormat(None, None)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(encoded: bytes) -> np.ndarray:
    return decode(encoded, None, AS_THEY_ARE)[0]


def palette(**options) -> bytes:
    """Two pixels of a palette: (1, 2, 3) and (200, 0, 0)."""
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 200, 0, 0])
    image.putdata([0, 1])
    return saved(image, **options)


DEEP = np.array([[0, 128, 129, 257, 40_000, 65_535]], np.uint16)
IN_8_BITS = [0, 0, 1, 1, 156, 255]
"""By hand: x / 257 to the nearest."""


@pytest.mark.parametrize(
    "encoded",
    [
        saved(Image.fromarray(DEEP)),
        saved(Image.fromarray(DEEP), "TIFF"),
        saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
        saved(Image.frombytes("I;16B", (6, 1), DEEP.astype(">u2").tobytes()), "TIFF"),
        b"P5 6 1 65535\n" + DEEP.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "32 bits", "big endian", "pgm"],
)
def test_16_bits_become_8_by_their_range(encoded):
    assert pixels(encoded).ravel().tolist() == IN_8_BITS


def test_transparent_pixels_are_laid_on_white():
    grey = np.array([[[10, 255], [10, 0], [0, 128]]], np.uint8)
    colour = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    assert pixels(saved(Image.fromarray(grey, "LA"))).ravel().tolist() == [10, 255, 127]
    assert pixels(saved(Image.fromarray(colour))).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    assert pixels(palette()).tolist() == [[[1, 2, 3], [200, 0, 0]]]
    for kind in ("PNG", "GIF"):
        assert pixels(palette(kind=kind, transparency=0)).tolist() == [[[255, 255, 255], [200, 0, 0]]]
    assert pixels(saved(Image.fromarray(grey[..., 0]), transparency=10)).ravel().tolist() == [255, 255, 0]
    opaque = numbered(7)
    alpha = np.concatenate([opaque, np.full((*opaque.shape[:2], 1), 255, np.uint8)], 2)
    assert np.array_equal(pixels(encode(alpha)), opaque)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_their_exif_says(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    encoded = saved(Image.fromarray(numbered(3)), exif=exif)
    with Image.open(io.BytesIO(encoded)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(pixels(encoded), upright)
    assert upright.shape == ((6, 5, 3) if orientation < 5 else (5, 6, 3))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_16_bits_turn_too_and_unreadable_exif_is_passed_over():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    assert pixels(saved(Image.fromarray(DEEP), exif=exif)).shape == (6, 1, 1)
    torn = saved(Image.fromarray(numbered(3)), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(pixels(torn), numbered(3))


def test_other_modes_and_several_frames():
    black_and_white = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert pixels(saved(black_and_white)).tolist() == [[[0], [255]]]
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    cmyk = pixels(saved(red.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(cmyk.astype(int) - (255, 0, 0)).max() <= 3
    green = Image.new("RGB", (8, 8), (0, 255, 0))
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        moving, frames = decode(saved(red, kind, save_all=True, append_images=[green], **options), None, AS_THEY_ARE)
        assert (frames, moving[0, 0].tolist()) == (2, [255, 0, 0]), kind


@pytest.mark.parametrize(
    ("encoded", "says"),
    [
        (None, "has no image"),
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>not found</html>", "is not an image that Pillow can read"),
        (encode(numbered(1))[:60], "is truncated"),
        (encode(np.tile(numbered(1), (20, 20, 1)), "JPEG")[:700], "is truncated"),
        (saved(Image.fromarray(DEEP.astype(np.float32)), "TIFF"), "has pixels of kind 'F'; save it as grey or RGB"),
        (saved(Image.fromarray(np.array([[-1, 5]], np.int32)), "TIFF"), "has 32-bit pixels from -1 to 5"),
        (saved(Image.fromarray(np.array([[0, 65_536]], np.int32)), "TIFF"), "has 32-bit pixels from 0 to 65536"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(encoded, says):
    with pytest.raises(Unfit, match=f"^{says}"):
        decode(encoded, None, AS_THEY_ARE)


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_are_never_another_error():
    chance = np.random.default_rng(0)
    noise = Image.fromarray(chance.integers(0, 256, (40, 40, 3), np.uint8))
    refused = 0
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "PPM"):
        whole = saved(noise, kind)
        for number in range(40):
            torn = bytearray(whole[: chance.integers(len(whole))] if number % 2 else whole)
            for place in chance.integers(0, max(1, min(len(torn), 200)), 4) if torn else ():
                torn[place] = chance.integers(256)
            try:
                decode(bytes(torn), None, AS_THEY_ARE)
            except Unfit:
                refused += 1
    assert refused > 100
