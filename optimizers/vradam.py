"""VRAdam: Adam whose rate falls as its velocity grows (arXiv 2505.13196, Algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optimizers.gate import blended_power_sum, power_sum
from optimizers.gated import Columns, GatedOptimizer


class VRAdam(GatedOptimizer):
    state_names = ("exp_avg", "exp_avg_sq", "step")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float = 1.0,
        alpha1: float = 10.0,
        eps: float = 1e-8,
        weight_decay: float = 1e-5,
        *,
        power: float = 2.0,
        gate_on: str = "velocity",
        gate_scope: str = "global",
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": tuple(betas),
                "beta3": beta3,
                "alpha1": alpha1,
                "eps": eps,
                "weight_decay": weight_decay,
                "power": power,
                "gate_on": gate_on,
                "gate_scope": gate_scope,
                "maximize": maximize,
                "foreach": foreach,
                "fused": fused,
                "capturable": capturable,
                "differentiable": differentiable,
            },
        )

    def init_state(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float32, device=param.device),
            "exp_avg": torch.zeros_like(param, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(param, memory_format=torch.preserve_format),
        }

    def power_sums(self, group: dict[str, Any], columns: Columns) -> list[Tensor]:
        if group["gate_on"] == "gradient":
            return power_sum(columns.grads, group["power"])
        return blended_power_sum(
            columns.state["exp_avg"], columns.grads, 1 - group["betas"][0], group["power"], negate=group["maximize"]
        )

    def update(self, group: dict[str, Any], columns: Columns, rate: Tensor) -> None:
        torch._foreach_add_(columns.state["step"], 1)
        torch._fused_adamw_(
            columns.params,
            columns.grads,
            columns.state["exp_avg"],
            columns.state["exp_avg_sq"],
            [],
            columns.state["step"],
            amsgrad=False,
            lr=rate,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=group["maximize"],
        )
