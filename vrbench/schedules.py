"""Learning-rate schedules, stepped once per optimizer step: thin partials over torch.optim.lr_scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


def constant(optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> LRScheduler:
    """The configured `lr` for the whole run."""
    from torch.optim.lr_scheduler import ConstantLR

    return ConstantLR(optimizer, factor=1.0)


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: float,
    warmup_factor: float,
    min_lr: float,
) -> LRScheduler:
    """Linear warm-up from `warmup_factor · lr` over `warmup_epochs`, then half a cosine down to `min_lr`.

    Source: Table 6 of arXiv 2505.13196 (5 epochs from factor 0.1, cosine to 1e-5), there stepped by the epoch.
    Raises ValueError where the warm-up leaves no step to decay in.
    """
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

    if warmup_epochs < 0:
        raise ValueError(f"warmup_epochs={warmup_epochs}: must be 0 or more")
    if not 0 < warmup_factor <= 1:
        raise ValueError(f"warmup_factor={warmup_factor}: must be in (0, 1]")
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup >= total_steps:
        raise ValueError(
            f"warmup_epochs={warmup_epochs}: the warm-up takes {warmup} steps and the run has {total_steps}; "
            "lower warmup_epochs or train longer"
        )
    cosine = CosineAnnealingLR(optimizer, T_max=total_steps - warmup, eta_min=min_lr)
    if warmup == 0:
        return cosine
    linear = LinearLR(optimizer, start_factor=warmup_factor, total_iters=warmup)
    return SequentialLR(optimizer, [linear, cosine], milestones=[warmup])
