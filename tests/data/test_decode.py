"""Decoding images: order, cuts and refusals, and the cache of decoded pixels."""

from __future__ import annotations

import io
import logging
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from small_images import encode, numbered

from vrbench.data import decode
from vrbench.data.decode import cached, decode_all
from vrbench.data.pixels import PixelFormat


def decoded(encoded: list[bytes], wanted: PixelFormat) -> np.ndarray:
    def fetch(chunk: range) -> list[bytes]:
        return encoded[chunk.start : chunk.stop]

    return decode_all(len(encoded), fetch, wanted, "x", "{}.png".format, lambda shape: np.empty(shape, np.uint8))


def test_decoding_many_chunks_keeps_the_order():
    encoded = [encode(numbered(number % 256)[:, :, 0]) for number in range(1200)]
    pixels = decoded(encoded, PixelFormat(None, None))
    assert pixels.shape == (1200, 6, 5, 1)
    assert pixels[:, 0, 0, 0].tolist() == [number % 256 for number in range(1200)]


def test_a_wide_image_is_scaled_and_cut_in_the_middle():
    left, middle, right = (np.full((8, 8), value, dtype=np.uint8) for value in (10, 200, 90))
    encoded = [encode(np.concatenate([left, middle, right], 1))]
    pixels = decoded(encoded, PixelFormat(4, None))
    assert pixels.shape == (1, 4, 4, 1)
    assert (pixels[0, :, 1:3] == 200).all()


def test_colour_among_grey_and_other_sizes_are_refused_by_name():
    grey, colour = encode(numbered(3)[:, :, 0]), encode(numbered(3))
    mixed = [grey, colour]
    with pytest.raises(ValueError, match=r"^x: 1\.png is in colour and the first is grey; set channels=3"):
        decoded(mixed, PixelFormat(None, None))
    assert (decoded(mixed, PixelFormat(None, 3))[0] == 3).all()
    with pytest.raises(ValueError, match=r"^x: 1\.png has 7×5 pixels and 0\.png 6×5; set image_size"):
        decoded([colour, encode(numbered(3, 7))], PixelFormat(None, None))


def test_it_is_said_that_the_first_frame_is_taken():
    still = encode(numbered(1))
    buffer = io.BytesIO()
    frames = [Image.fromarray(numbered(number)) for number in (2, 3)]
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])
    moving = buffer.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded([still, still], PixelFormat(None, None))
    with pytest.warns(UserWarning, match="^x: the first frame is taken of 1.png$"):
        assert decoded([still, moving], PixelFormat(None, None))[1, 0, 0, 0] == 2
    with pytest.warns(UserWarning, match=r"^x: the first frame is taken of 2 images \(0.png, …\)$"):
        decoded([moving, moving], PixelFormat(None, None))


def test_the_cache_survives_a_torn_file_and_an_unwritable_folder(tmp_path, caplog):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    folder = tmp_path / "pixels"
    assert np.array_equal(cached(folder, ("key",), lambda empty: pixels), pixels)
    assert np.array_equal(cached(folder, ("key",), lambda empty: pytest.fail("decoded again")), pixels)
    assert np.array_equal(cached(folder, ("other",), lambda empty: pixels + 1), pixels + 1)
    assert not list(folder.glob("*.tmp"))
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(cached(folder, ("key",), lambda empty: pixels), pixels)
        assert "unreadable" in caplog.text
        (tmp_path / "file").write_text("not a folder")
        assert np.array_equal(cached(tmp_path / "file", ("key",), lambda empty: pixels), pixels)
        assert "not cached" in caplog.text


def test_many_images_are_decoded_into_a_file_and_mapped(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(decode, "MAPPED", 100)
    pictures = [encode(numbered(number)) for number in range(9)]
    wanted = decoded(pictures, PixelFormat(None, None))

    def make(empty):
        pixels = empty(wanted.shape)
        assert isinstance(pixels, np.memmap)
        pixels[:] = wanted
        return pixels

    folder = tmp_path / "pixels"
    for make_or_not in (make, lambda empty: pytest.fail("decoded again")):
        found = cached(folder, ("key",), make_or_not)
        assert isinstance(found, np.memmap)
        assert np.array_equal(found, wanted)
        torch.from_numpy(found)[0] = 1  # a copy of the page: what is written does not reach the file
    assert [file.suffix for file in folder.iterdir()] == [".npy"]

    def fail(empty):
        empty(wanted.shape)
        raise ValueError("a picture is damaged")

    with pytest.raises(ValueError, match="damaged"):
        cached(folder, ("other",), fail)
    assert len(list(folder.iterdir())) == 1

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    found = cached(folder, ("third",), lambda empty: np.copyto(pixels := empty(wanted.shape), wanted) or pixels)
    assert np.array_equal(found, wanted)
    assert "not cached" in caplog.text
    assert "No space left" in caplog.text
