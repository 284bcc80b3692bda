"""What the U-Nets are made of: time embedding, residual block, self-attention, as in DDPM (arXiv 2006.11239)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal_embedding(t: Tensor, width: int) -> Tensor:
    """Sines and cosines of timesteps (B,) at `width / 2` frequencies from 1 down to 1/10000, float32 (B, width)."""
    frequencies = torch.exp(torch.arange(width // 2, device=t.device) * (-math.log(10_000) / max(1, width // 2 - 1)))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding and a two-layer MLP: timesteps (B,) to (B, out_features). ValueError for an odd width."""

    def __init__(self, width: int, out_features: int) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"time_features={width}: half are sines, half cosines, so an even number of at least 2")
        self.width = width
        self.mlp = nn.Sequential(nn.Linear(width, out_features), nn.SiLU(), nn.Linear(out_features, out_features))

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(sinusoidal_embedding(t, self.width))


class ResidualBlock(nn.Module):
    """(GroupNorm, SiLU, conv) twice around a residual, the time embedding added between: (B, C, H, W) to (B, C', H, W).

    The second convolution starts at zero, so that the block starts as its shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, time_features: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_features, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class SelfAttention(nn.Module):
    """One-head self-attention over the pixels, with a residual: (B, C, H, W) to the same.

    The softmax is written out: fused kernels have no second derivative on the CPU, which curvature needs.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        weights = torch.softmax(query.mT @ key / math.sqrt(x.shape[1]), dim=-1)
        return x + self.out((value @ weights.mT).unflatten(2, x.shape[2:]))


def check_image_shape(input_shape: tuple[int, ...], output_dim: int, model: str) -> None:
    """Raise ValueError where a task's shapes are not those of an image-to-image model: (C, H, W) and C."""
    if len(input_shape) != 3 or output_dim != input_shape[0]:
        raise ValueError(
            f"model={model}: takes noisy images and gives back as many channels, not input {tuple(input_shape)} "
            f"and {output_dim} outputs; use it with a diffusion task"
        )


def check_levels(name: str, given: list[int], channels: list[int], groups: int) -> None:
    """Raise ValueError where a U-Net's levels cannot be built: `name` and `given` are the option they come from."""
    if not channels or min(channels) < 1:
        raise ValueError(f"{name}={given}: a U-Net needs one positive entry for each of its levels, at least one")
    if groups < 1 or any(count % groups for count in channels):
        raise ValueError(f"groups={groups}: must divide the channels of every level, here {channels}")
