"""paper_unet: the U-Net of the VRAdam paper's diffusion experiment, at any image size."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vrbench.models.unet_blocks import (
    ResidualBlock,
    SelfAttention,
    TimeEmbedding,
    check_image_shape,
    check_levels,
)


class ResidualStack(nn.Module):
    """Residual blocks from each channel count to the next: (B, channels[0], H, W) to (B, channels[-1], H, W)."""

    def __init__(self, channels: list[int], time_features: int, groups: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, time_features, groups) for before, after in itertools.pairwise(channels)
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, time)
        return x


class PaperUNet(nn.Module):
    """DDPM's U-Net: residual blocks, strided convolutions down, nearest-neighbour and convolution up (2505.13196).

    Of the paper's model the channels, norm, activation, attention at the bottom and width of the time embedding are
    known. One residual block a level on either side is our reading; images whose sides are no power of two are halved
    rounding up and brought back to the size of the skip connection.

    Args:
        input_shape: (C, H, W).
        output_dim: C.
        base_channels: channels at full size (96).
        multipliers: channels of each level in units of `base_channels` (1-2-4-8-8).
        blocks: residual blocks of each level, on either side.
        groups: groups of every GroupNorm (8).
        time_features: width of the time embedding (128).
        attention: self-attention at the lowest level.

    forward(x (B, C, H, W), t int64 (B,)) gives (B, C, H, W). Raises ValueError for other shapes, no level or block, or
    groups that do not divide the channels.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        *,
        base_channels: int,
        multipliers: list[int],
        blocks: int,
        groups: int,
        time_features: int,
        attention: bool,
    ) -> None:
        super().__init__()
        check_image_shape(input_shape, output_dim, "paper_unet")
        channels = [base_channels * multiplier for multiplier in multipliers]
        check_levels("multipliers", multipliers, channels, groups)
        if blocks < 1:
            raise ValueError(f"blocks={blocks}: every level needs at least 1 residual block")
        self.time = TimeEmbedding(time_features, time_features)
        self.stem = nn.Conv2d(input_shape[0], channels[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            above = channels[max(0, level - 1)]
            self.shrink.append(nn.Identity() if level == 0 else nn.Conv2d(above, above, 3, stride=2, padding=1))
            self.down.append(ResidualStack([above] + [width] * blocks, time_features, groups))
        self.before = ResidualBlock(channels[-1], channels[-1], time_features, groups)
        self.after = ResidualBlock(channels[-1], channels[-1], time_features, groups)
        self.attention = SelfAttention(channels[-1], groups) if attention else nn.Identity()
        below = channels[-1]
        for level in reversed(range(len(channels))):
            width, last = channels[level], level == len(channels) - 1
            self.grow.append(nn.Identity() if last else nn.Conv2d(below, width, 3, padding=1))
            self.up.append(
                ResidualStack([(below if last else width) + width] + [width] * blocks, time_features, groups)
            )
            below = width
        self.head = nn.Sequential(
            nn.GroupNorm(groups, channels[0]), nn.SiLU(), nn.Conv2d(channels[0], output_dim, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)
        x = self.stem(x)
        skips: list[Tensor] = []
        for shrink, stack in zip(self.shrink, self.down, strict=True):
            x = shrink(x)
            x = stack(x, time)
            skips.append(x)
        x = self.after(self.attention(self.before(x, time)), time)
        for grow, stack in zip(self.grow, self.up, strict=True):
            skip = skips.pop()
            if x.shape[2:] != skip.shape[2:]:
                x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = stack(torch.cat([grow(x), skip], dim=1), time)
        return self.head(x)
