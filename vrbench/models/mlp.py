"""Fully connected network on flattened inputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}


class MLP(nn.Module):
    """Linear layers with an activation between them: input → hidden[0] → … → output_dim.

    Takes (B, *input_shape), returns (B, output_dim). `hidden` may be empty (a linear model). torch's default
    initialisation. Raises ValueError for a width below 1 or an unknown activation.
    """

    def __init__(self, input_shape: tuple[int, ...], output_dim: int, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        if not all(isinstance(width, int) and width >= 1 for width in hidden):
            raise ValueError(f"hidden={list(hidden)}: give a list of layer widths of at least 1")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: choose one of {', '.join(ACTIVATIONS)}")
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], output_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)
