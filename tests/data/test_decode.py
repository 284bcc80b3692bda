"""Decoding images: order, cuts and refusals, and the cache of decoded pixels."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from small_images import encode, numbered

from vrbench.data.decode import PixelFormat, cached, decode_all


def test_decoding_many_chunks_keeps_the_order():
    encoded = [encode(numbered(number % 256)[:, :, 0]) for number in range(1200)]
    pixels = decode_all(1200, lambda chunk: encoded[chunk.start : chunk.stop], PixelFormat(None, None), "x")
    assert pixels.shape == (1200, 6, 5, 1)
    assert pixels[:, 0, 0, 0].tolist() == [number % 256 for number in range(1200)]


def test_a_wide_image_is_scaled_and_cut_in_the_middle():
    left, middle, right = (np.full((8, 8), value, dtype=np.uint8) for value in (10, 200, 90))
    encoded = [encode(np.concatenate([left, middle, right], 1))]
    pixels = decode_all(1, lambda chunk: encoded, PixelFormat(4, None), "x")
    assert pixels.shape == (1, 4, 4, 1)
    assert (pixels[0, :, 1:3] == 200).all()


def test_colour_among_grey_and_deep_pixels_are_refused():
    grey, colour = encode(numbered(3)[:, :, 0]), encode(numbered(3))
    mixed = [grey, colour]
    with pytest.raises(ValueError, match="x: image 1 is in colour and the first is grey; set channels=3"):
        decode_all(2, lambda chunk: mixed[chunk.start : chunk.stop], PixelFormat(None, None), "x")
    both = decode_all(2, lambda chunk: mixed[chunk.start : chunk.stop], PixelFormat(None, 3), "x")
    assert (both[0] == 3).all()
    deep = [encode(np.full((4, 4), 40_000, dtype=np.uint16))]
    with pytest.raises(ValueError, match="x: image 0 has pixels of kind 'I;16'"):
        decode_all(1, lambda chunk: deep, PixelFormat(None, None), "x")


def test_the_cache_survives_a_torn_file_and_an_unwritable_folder(tmp_path, caplog):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    folder = tmp_path / "pixels"
    assert np.array_equal(cached(folder, ("key",), lambda: pixels), pixels)
    assert np.array_equal(cached(folder, ("key",), lambda: pytest.fail("decoded again")), pixels)
    assert np.array_equal(cached(folder, ("other",), lambda: pixels + 1), pixels + 1)
    assert not list(folder.glob("*.tmp"))
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(cached(folder, ("key",), lambda: pixels), pixels)
        assert "unreadable" in caplog.text
        (tmp_path / "file").write_text("not a folder")
        assert np.array_equal(cached(tmp_path / "file", ("key",), lambda: pixels), pixels)
        assert "not cached" in caplog.text
