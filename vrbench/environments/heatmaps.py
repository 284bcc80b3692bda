"""Non-negative planes as one picture."""

from __future__ import annotations

import torch
from torch import Tensor

_STOPS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Dark to bright at equal distances, perceptually even (the anchors of viridis)."""


def heatmaps(planes: Tensor, side: int = 192, gap: int = 8) -> Tensor:
    """(planes, rows, columns), none negative → uint8 (height, width, 3): side by side, on one colour scale from 0.

    A cell becomes a square so large that a plane's longer side has about `side` pixels; a white `gap` lies between.
    """
    scale = planes.max().clamp(min=torch.finfo(planes.dtype).tiny)
    position = (planes / scale).clamp(0, 1) * (len(_STOPS) - 1)
    colours = torch.tensor(_STOPS, dtype=planes.dtype)
    below = position.floor().long().clamp(max=len(_STOPS) - 2)
    pixels = torch.lerp(colours[below], colours[below + 1], (position - below).unsqueeze(-1))
    cell = max(1, side // max(planes.shape[1:]))
    pixels = pixels.round().to(torch.uint8).repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    blank = torch.full((pixels.shape[1], gap, 3), 255, dtype=torch.uint8)
    parts = [part for plane in pixels for part in (blank, plane)][1:]
    return torch.cat(parts, 1)
