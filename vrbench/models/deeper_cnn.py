"""The CNN of the VRAdam paper's CIFAR-10 experiment (arXiv 2505.13196, appendix; "DeeperCNN")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class DeeperCNN(nn.Module):
    """A block for each of `channels`: [conv3×3 → batch norm → ReLU] × 2 → 2×2 max-pool; then flat → hidden → classes.

    Takes (B, C, H, W), returns (B, output_dim). With channels 64, 128, 256, hidden 512 and 3×32×32 inputs the head is
    4096-512-10, as in the paper; no dropout. torch's default initialisation. Raises ValueError for inputs that are no
    images or too small to be halved by every block.
    """

    def __init__(self, input_shape: tuple[int, ...], output_dim: int, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        if not channels or not all(isinstance(width, int) and width >= 1 for width in (*channels, hidden)):
            raise ValueError(f"channels={channels}, hidden={hidden}: give whole widths of at least 1")
        smallest = 2 ** len(channels)
        if len(input_shape) != 3:
            raise ValueError(
                f"input shape {tuple(input_shape)}: it takes images (channels, height, width); choose another model"
            )
        if min(input_shape[1:]) < smallest:
            raise ValueError(
                f"channels={list(channels)}: {len(channels)} blocks halve an image each, so the model needs at least "
                f"{smallest}×{smallest} pixels and got the input shape {tuple(input_shape)}; "
                "take model=mlp, or fewer channels"
            )
        before, height, width = input_shape
        layers: list[nn.Module] = []
        for count in channels:
            layers += [*_conv_norm_relu(before, count), *_conv_norm_relu(count, count), nn.MaxPool2d(2)]
            before, height, width = count, height // 2, width // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(before * height * width, hidden), nn.ReLU(), nn.Linear(hidden, output_dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def _conv_norm_relu(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
