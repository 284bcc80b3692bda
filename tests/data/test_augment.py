"""Crops, flips and normalisation of whole batches, against a loop over the images."""

from __future__ import annotations

import pytest
import torch

from vrbench.data.augment import Normalize, crop_flip, draw_crop_flip, random_crop_flip


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_the_gather_equals_a_loop_over_the_images(padding):
    generator = torch.Generator().manual_seed(3)
    batch = torch.randint(0, 256, (50, 7, 6, 3), dtype=torch.uint8, generator=generator)
    rows, columns, flipped = draw_crop_flip(50, padding, True, generator)
    result = crop_flip(batch, rows, columns, flipped, padding)
    for number in range(50):
        big = torch.zeros(7 + 2 * padding, 6 + 2 * padding, 3, dtype=torch.uint8)
        big[padding : padding + 7, padding : padding + 6] = batch[number]
        top, left = int(rows[number]), int(columns[number])
        expected = big[top : top + 7, left : left + 6]
        assert torch.equal(result[number], expected.flip(1) if flipped[number] else expected)
    assert 10 < int(flipped.sum()) < 40
    assert set(rows.tolist()) == set(range(2 * padding + 1))


def test_draws_come_from_the_generator_alone_and_off_means_off():
    batch = torch.randint(0, 256, (16, 8, 8, 1), dtype=torch.uint8)
    first = random_crop_flip(batch, 2, True, torch.Generator().manual_seed(1))
    torch.manual_seed(99)
    assert torch.equal(random_crop_flip(batch, 2, True, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(random_crop_flip(batch, 2, True, torch.Generator().manual_seed(2)), first)
    assert random_crop_flip(batch, 0, False, torch.Generator()) is batch
    assert not draw_crop_flip(1000, 2, False, torch.Generator())[2].any()


def test_normalise_is_exact_and_comes_in_channels_last_strides():
    batch = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8)
    mean, std = [0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]
    result = Normalize(mean, std, width=6)(batch)
    expected = (batch.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result.double(), expected.permute(0, 3, 1, 2), rtol=1e-6, atol=1e-6)
