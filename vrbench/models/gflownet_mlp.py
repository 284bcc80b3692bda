"""The network of a GFlowNet on a small discrete space: one shared trunk, or one row of numbers for each state."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}
LARGEST_TABLE = 2**26


class GFlowNetMLP(nn.Module):
    """Every head of a GFlowNet (policy logits, log flows) as one linear layer on a shared trunk.

    `forward` takes (batch, *input_shape), one-hot or float, and returns (batch, output_dim); the task says which
    columns are what. The default, two hidden layers of 256 with ReLU, is the network of torchgfn's HyperGrid examples,
    the trunk shared between the forward and the backward policy (arXiv 2201.13259, section 5.1).

    `log_z` (shape (1,), starts at 0) is the logarithm of the partition function that trajectory balance learns; the
    task gives it a learning rate of its own. Losses without it leave it frozen.

    `tabular` replaces the trunk by a free row for each state, zeros at first: the loss without the network, as an
    oracle. It needs one-hot states of shape (ndim, height); `hidden`, `layers` and `activation` then play no part.

    Raises ValueError for sizes below 1, and where a table cannot be laid out or would have more than 2^26 numbers.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        *,
        hidden: int,
        layers: int,
        activation: Literal["relu", "tanh", "silu", "gelu"],
        tabular: bool,
        log_z: bool,
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden={hidden}: must be 1 or more")
        if layers < 1:
            raise ValueError(f"layers={layers}: must be 1 or more")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        self.log_z: nn.Parameter | None = nn.Parameter(torch.zeros(1)) if log_z else None
        self.net = (
            _table(input_shape, output_dim)
            if tabular
            else _mlp(prod(input_shape), hidden, layers, ACTIVATIONS[activation], output_dim)
        )

    def forward(self, states: Tensor) -> Tensor:
        return self.net(states)


class StateTable(nn.Module):
    """A row of `output_dim` free numbers for each cell of a grid, looked up by its one-hot coordinates."""

    strides: Tensor

    def __init__(self, ndim: int, height: int, output_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(height**ndim, output_dim))
        strides = height ** torch.arange(ndim - 1, -1, -1)
        self.register_buffer("strides", strides, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """(batch, ndim, height) one-hot → (batch, output_dim)."""
        return self.weight[states.argmax(-1) @ self.strides]


class _Flat(nn.Module):
    """(batch, …) of any dtype → (batch, features) in the dtype of the weights that follow."""

    def __init__(self, follows: nn.Linear) -> None:
        super().__init__()
        self._follows = (follows,)  # in a tuple, so that it is not registered twice

    def forward(self, states: Tensor) -> Tensor:
        return states.flatten(1).to(self._follows[0].weight.dtype)


def _mlp(inputs: int, hidden: int, layers: int, activation: type[nn.Module], outputs: int) -> nn.Sequential:
    widths = [inputs, *[hidden] * layers]
    linears = [nn.Linear(width, after) for width, after in pairwise(widths)]
    body = [module for linear in linears for module in (linear, activation())]
    return nn.Sequential(_Flat(linears[0]), *body, nn.Linear(hidden, outputs))


def _table(input_shape: tuple[int, ...], output_dim: int) -> StateTable:
    if len(input_shape) != 2:
        raise ValueError(f"tabular=true: needs states of shape (ndim, height), not {input_shape}; take tabular=false")
    ndim, height = input_shape
    if height**ndim * output_dim > LARGEST_TABLE:
        raise ValueError(
            f"tabular=true: {height}^{ndim} states of {output_dim} numbers are more than {LARGEST_TABLE}; "
            "take tabular=false or a smaller grid"
        )
    return StateTable(ndim, height, output_dim)
