"""What the language models share: the shape they take and sinusoidal positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def context_of(input_shape: tuple[int, ...]) -> int:
    """Longest sequence of tokens that a model is built for: `input_shape` is (context,). ValueError for others."""
    if len(input_shape) != 1:
        raise ValueError(f"input_shape={tuple(input_shape)}: it takes token sequences; choose a text task")
    return int(input_shape[0])


def check_heads(width: int, heads: int) -> None:
    """ValueError unless the width can be shared out among the attention heads."""
    if width % heads != 0:
        raise ValueError(f"heads={heads}: must divide width={width}")


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Sines and cosines of geometric wavelengths, shape (length, width) with an even width (arXiv 1706.03762, 3.5)."""
    if width % 2 != 0:
        raise ValueError(f"width={width}: sinusoidal positions need an even width")
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angles = torch.arange(length).unsqueeze(1) * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
