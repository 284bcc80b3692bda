"""The convolutional GFlowNet of the VRAdam paper's GridWorld experiment."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class GridWorldConv(nn.Module):
    """3×3 convolutions (padding 1, ReLU) of the given widths, one hidden layer, all heads as one linear layer.

    (batch, planes, rows, columns) → (batch, output_dim). The heads (forward policy, backward policy, state flow) are
    columns of the output; the softplus that makes the flow positive is the task's. The paper has widths 32, 64, 128
    (arXiv 2505.13196 and its code); the width of the hidden layer is not stated there.

    Raises ValueError for an input that is not planes of a grid, and for widths below 1.
    """

    def __init__(self, input_shape: tuple[int, ...], output_dim: int, *, channels: Sequence[int], hidden: int) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(
                f"input_shape={input_shape}: gridworld_conv needs (planes, rows, columns); take model=gflownet_mlp"
            )
        if not channels or min(channels) < 1:
            raise ValueError(f"channels={list(channels)}: must be one or more widths of 1 or more")
        if hidden < 1:
            raise ValueError(f"hidden={hidden}: must be 1 or more")
        planes, rows, columns = input_shape
        widths = [planes, *channels]
        body: list[nn.Module] = []
        for before, after in zip(widths, channels, strict=False):
            body += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        body += [nn.Flatten(), nn.Linear(widths[-1] * rows * columns, hidden), nn.ReLU()]
        self.net = nn.Sequential(*body, nn.Linear(hidden, output_dim))

    def forward(self, states: Tensor) -> Tensor:
        return self.net(states)
