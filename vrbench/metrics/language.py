"""Scores of tokens: cross-entropy in nats, perplexity, and the unigram model that any other has to beat."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def unigram_loss(train: np.ndarray, counts: np.ndarray) -> float:
    """Mean cross-entropy (nats) of tokens under the token frequencies of the training split, one added to every count.

    `train` and `counts` say how often each token of the vocabulary stands in the training split and among the tokens.
    """
    log_probability = np.log((train + 1) / (train + 1).sum())
    return float(-(counts @ log_probability) / counts.sum())


def token_scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats and whether the likeliest token is right, for each target.

    `logits` (B, T, V) are taken to float32, `targets` is int64 (B, T); both results have shape (B, T).
    """
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return losses, logits.argmax(-1) == targets


def mean_loss(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Mean cross-entropy in nats over the targets that are not `ignore_index`, in float32; scalar."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=ignore_index)


def perplexity(loss: float) -> float:
    """exp of the mean cross-entropy; infinite where a float cannot hold it."""
    return float(torch.tensor(loss, dtype=torch.float64).exp())
