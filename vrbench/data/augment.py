"""Whole-batch image operations, on the device where the images lie: random crop and flip, and normalisation.

Batches are uint8 of shape (B, H, W, C). All randomness comes from the generator passed in.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn


def draw_crop_flip(count: int, padding: int, flip: bool, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `count` images: first row and first column of its crop in the padded image, and whether to flip it.

    int64 offsets in [0, 2·padding], shape (count,), and bool of shape (count,), on the generator's device. The numbers
    drawn do not depend on which of the two operations is on.
    """
    device = generator.device
    draws = torch.rand((3, count), generator=generator, device=device)
    rows, columns = (draws[:2] * (2 * padding + 1)).long()
    return rows, columns, (draws[2] < 0.5) & flip


def crop_flip(images: Tensor, rows: Tensor, columns: Tensor, flipped: Tensor, padding: int) -> Tensor:
    """Pad with zeros, cut out H×W from the given corners, mirror the flagged images: one gather for the whole batch.

    `images` (B, H, W, C); `rows`, `columns` int64 (B,) in [0, 2·padding]; `flipped` bool (B,). Returns (B, H, W, C).
    """
    count, height, width, channels = images.shape
    padded = nn.functional.pad(images, (0, 0, padding, padding, padding, padding))
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    device = images.device
    across = torch.arange(width, device=device)
    across = torch.where(flipped[:, None], width - 1 - across, across) + columns[:, None]
    down = torch.arange(height, device=device) + rows[:, None]
    first = torch.arange(0, count * padded_height * padded_width, padded_height * padded_width, device=device)
    pixels = (first[:, None] + down * padded_width)[:, :, None] + across[:, None, :]
    return padded.view(-1, channels).index_select(0, pixels.view(-1)).view(images.shape)


def random_crop_flip(
    images: Tensor, padding: int, flip: bool, generator: Generator, share: tuple[int, int] = (0, 1)
) -> Tensor:
    """The usual CIFAR augmentation: a random crop out of the image padded by `padding`, mirrored half of the time.

    With `share` (i, n) they are the i-th of n equal parts of a batch, cropped and mirrored as they are in the whole.
    """
    if padding == 0 and not flip:
        return images
    part, parts = share
    draws = draw_crop_flip(parts * len(images), padding, flip, generator)
    rows, columns, flipped = (draw.chunk(parts)[part] for draw in draws)
    return crop_flip(images, rows, columns, flipped, padding)


class Normalize:
    """uint8 (B, H, W, C) → float32 (B, C, H, W) in channels_last strides: (pixel/255 - mean) / std per channel.

    `mean` and `std` are on the scale 0 … 1, one value per channel. The constants are repeated over a whole image row,
    which makes the inner loop long; a broadcast over three channels is several times slower.
    """

    def __init__(self, mean: list[float], std: list[float], width: int) -> None:
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = scale.float().repeat(width)
        self.shift = shift.float().repeat(width)

    def to(self, device: torch.device) -> Normalize:
        """The same for images on another device."""
        self.scale, self.shift = self.scale.to(device), self.shift.to(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        count, height, width, channels = images.shape
        rows = images.reshape(count, height, width * channels).float()
        return rows.mul_(self.scale).add_(self.shift).view(images.shape).permute(0, 3, 1, 2)
