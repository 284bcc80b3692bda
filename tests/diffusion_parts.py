"""A diffusion process, images and a task small enough to check by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from vrbench.tasks.diffusion import Diffusion

import vrbench.metrics.image_quality as image_quality
from vrbench.data.images import ImageData, digits
from vrbench.models.unet_tiny import TinyUNet
from vrbench.objectives.diffusion_process import DiffusionProcess, Sampler


def process(**changes: Any) -> DiffusionProcess:
    usual: dict[str, Any] = {"timesteps": 400, "schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    return DiffusionProcess(**{**usual, "prediction": "noise", "min_snr_gamma": None, **changes})


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def some_images(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clean images in [-1, 1] and noise, float64 (count, 2, 3, 3)."""
    shape, generator = (count, 2, 3, 3), seeded(seed)
    x0 = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x0, torch.randn(shape, generator=generator, dtype=torch.float64)


def digits_data() -> ImageData:
    return digits(0.2, 0.2, 0, None)


def task(**changes: Any) -> Diffusion:
    usual: dict[str, Any] = {
        "name": "diffusion_digits",
        "data": digits_data(),
        "process": process(timesteps=40, schedule="cosine", prediction="v"),
        "sampler": Sampler("ddim", 4),
        "quality": None,
        "batch_size": 32,
        "flip": False,
        "eval_examples": 64,
        "buckets": 4,
        "render_samples": 5,
    }
    return Diffusion(**{**usual, **changes})


def tiny(channels: int = 1, size: int = 8) -> TinyUNet:
    torch.manual_seed(0)
    shape = (channels, size, size)
    return TinyUNet(shape, channels, channels=[8, 16], groups=4, time_features=16, attention=True)


def kept_digits() -> str:
    (path,) = image_quality.KEPT.glob("digits-*.pt")
    return path.stem
