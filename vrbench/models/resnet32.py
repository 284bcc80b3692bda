"""The CIFAR form of residual networks (He et al. 2016, arXiv 1512.03385, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class CifarResNet(nn.Module):
    """conv3×3 to `width` channels, three stages of n basic blocks with width, 2·width, 4·width channels, mean, linear.

    `depth` = 6n + 2 counts the weighted layers: 32 gives n = 5 and, with width 16 on CIFAR-10, 0.46 M parameters.
    Stages two and three halve the image; their shortcuts carry no parameters (option A: every second pixel, new
    channels zero). Convolutions have no bias and He's initialisation (fan-out), batch norm starts at one, the linear
    layer keeps torch's own. Takes (B, C, H, W), returns (B, output_dim). Raises ValueError for a depth that is not
    6n + 2 and for images below 4×4.
    """

    def __init__(self, input_shape: tuple[int, ...], output_dim: int, depth: int, width: int) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6 != 0:
            raise ValueError(f"depth={depth}: give 6n + 2, such as 20, 32, 44, 56 or 110")
        if width < 1:
            raise ValueError(f"width={width}: give at least 1 channel")
        if len(input_shape) != 3 or min(input_shape[1:]) < 4:
            raise ValueError(
                f"input shape {tuple(input_shape)}: it takes images (channels, height, width) of at least 4×4 pixels; "
                "choose another model"
            )
        blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        before = width
        for after, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for number in range(blocks):
                layers.append(BasicBlock(before, after, stride if number == 0 else 1))
                before = after
        self.blocks = nn.Sequential(*layers)
        self.classify = nn.Linear(before, output_dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(functional.relu(self.norm(self.conv(images))))
        return self.classify(features.mean((2, 3)))


class BasicBlock(nn.Module):
    """relu(x' + norm(conv(relu(norm(conv(x)))))), where x' is x, subsampled and given zero channels as needed."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.stride = stride
        self.new_channels = after - before

    def forward(self, inputs: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(inputs)))))
        return functional.relu(self.shortcut(inputs) + residual)

    def shortcut(self, inputs: Tensor) -> Tensor:
        """Option A: every `stride`-th pixel; half of the new channels, all zero, before the old ones and half after."""
        if self.stride > 1:
            inputs = inputs[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            first = self.new_channels // 2
            inputs = functional.pad(inputs, (0, 0, 0, 0, first, self.new_channels - first))
        return inputs
