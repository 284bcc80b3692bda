"""torchvision's ResNet-18 (He et al. 2016, arXiv 1512.03385), with a stem for small images where wanted."""

from __future__ import annotations

from typing import cast

from torch import nn


def resnet18(input_shape: tuple[int, ...], output_dim: int, stem: str) -> nn.Module:
    """ResNet-18 from scratch: (B, C, H, W) → (B, output_dim).

    `stem`: `cifar` begins with a 3×3 convolution of stride 1 and no max-pool, so that a 32×32 image enters the stages
    whole; `imagenet` is torchvision's own (7×7, stride 2, max-pool), for images of 64 pixels and more. Raises
    ValueError for another stem and for inputs that are no images or too small to be halved that often.
    """
    smallest = {"cifar": 8, "imagenet": 32}
    if stem not in smallest:
        raise ValueError(f"stem={stem}: choose cifar (small images) or imagenet")
    if len(input_shape) != 3:
        raise ValueError(
            f"input shape {tuple(input_shape)}: it takes images (channels, height, width); choose another model"
        )
    if min(input_shape[1:]) < smallest[stem]:
        raise ValueError(
            f"stem={stem}: needs images of at least {smallest[stem]}×{smallest[stem]} pixels and "
            f"got the input shape {tuple(input_shape)}; take stem=cifar or model=mlp"
        )
    from torchvision.models import resnet18 as build

    model = cast(nn.Module, build(weights=None, num_classes=output_dim))
    if stem == "cifar":
        model.conv1 = _conv(input_shape[0], kernel=3, stride=1)
        model.maxpool = nn.Identity()
    elif input_shape[0] != 3:
        model.conv1 = _conv(input_shape[0], kernel=7, stride=2)
    return model


def _conv(channels: int, kernel: int, stride: int) -> nn.Conv2d:
    """A first convolution to 64 channels, initialised as torchvision initialises its own."""
    conv = nn.Conv2d(channels, 64, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
