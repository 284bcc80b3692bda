"""Where data lie while a run trains: small ones on its device, large ones on the host, from where batches travel."""

from __future__ import annotations

import torch
from torch import Tensor

ON_DEVICE = 2 * 10**9
"""Bytes of one split that an accelerator's memory takes."""


def placed(data: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """The data on the device, there of type `dtype`; where they are too large for it, as they are."""
    wanted = data.dtype if dtype is None else dtype
    if data.device == device or data.numel() * wanted.itemsize > ON_DEVICE:
        return data
    return data.to(wanted).to(device)


def brought(batch: Tensor, device: torch.device) -> Tensor:
    """The batch on the device, without waiting for it."""
    if batch.device == device:
        return batch
    return (batch.pin_memory() if device.type == "cuda" else batch).to(device, non_blocking=True)
