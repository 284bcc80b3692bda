"""unet_tiny: a U-Net small enough to train a diffusion model on a CPU in a minute."""

from __future__ import annotations

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


class TinyUNet(nn.Module):
    """One residual block a level on each side, average pooling down, nearest-neighbour up, attention at the bottom.

    Args:
        input_shape: (C, H, W), any height and width: odd sizes are pooled up and cut back on the way up.
        output_dim: C.
        channels: channels of each level, from full size down.
        groups: groups of every GroupNorm.
        time_features: width of the time embedding.
        attention: self-attention at the lowest level.

    forward(x (B, C, H, W), t int64 (B,)) gives (B, C, H, W). Raises ValueError for other shapes or groups that do not
    divide the channels.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        *,
        channels: list[int],
        groups: int,
        time_features: int,
        attention: bool,
    ) -> None:
        super().__init__()
        check_image_shape(input_shape, output_dim, "unet_tiny")
        check_levels("channels", channels, channels, groups)
        self.time = TimeEmbedding(time_features, time_features)
        self.stem = nn.Conv2d(input_shape[0], channels[0], 3, padding=1)
        before = [channels[0], *channels[:-1]]
        self.down = nn.ModuleList(
            ResidualBlock(wide, deep, time_features, groups) for wide, deep in zip(before, channels, strict=True)
        )
        self.attention = SelfAttention(channels[-1], groups) if attention else nn.Identity()
        self.middle = ResidualBlock(channels[-1], channels[-1], time_features, groups)
        self.up = nn.ModuleList(
            ResidualBlock(2 * deep, wide, time_features, groups)
            for wide, deep in zip(reversed(before), reversed(channels), strict=True)
        )
        self.head = nn.Sequential(
            nn.GroupNorm(groups, channels[0]), nn.SiLU(), nn.Conv2d(channels[0], output_dim, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.time(t)
        x = self.stem(x)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            if level > 0:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            x = block(x, time)
            skips.append(x)
        x = self.middle(self.attention(x), time)
        for level, block in enumerate(self.up):
            skip = skips.pop()
            if level > 0:
                x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = block(torch.cat([x, skip], dim=1), time)
        return self.head(x)
