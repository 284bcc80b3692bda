"""Scores of tokens, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vrbench.metrics.language import mean_loss, perplexity, token_scores, unigram_loss


def test_unigram_loss_adds_one_to_every_count() -> None:
    # counts 2, 1, 0 become 3, 2, 1 of 6; the tokens are 0, 2, 2, 1
    loss = unigram_loss(np.array([2, 1, 0]), np.array([1, 1, 2]))
    assert loss == pytest.approx(-(math.log(3 / 6) + 2 * math.log(1 / 6) + math.log(2 / 6)) / 4, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_token_scores_and_their_mean(dtype: torch.dtype) -> None:
    # probabilities 1/4, 1/4, 1/2 and 2/3, 0, 1/3; in bfloat16 the logarithms are read as float32
    logits = torch.tensor([[[0.25, 0.25, 0.5], [2 / 3, 1e-30, 1 / 3]]]).log().to(dtype)
    targets = torch.tensor([[2, 2]])
    losses, right = token_scores(logits, targets)
    wanted = torch.tensor([[math.log(2), math.log(3)]])
    torch.testing.assert_close(losses, wanted, rtol=1e-6 if dtype == torch.float32 else 1e-2, atol=0)
    assert losses.dtype == torch.float32
    assert right.tolist() == [[True, False]]
    assert mean_loss(logits, targets) == pytest.approx(float(losses.mean()), rel=1e-6)
    assert mean_loss(logits, torch.tensor([[2, -100]])) == pytest.approx(float(losses[0, 0]), rel=1e-6)


def test_perplexity() -> None:
    assert perplexity(math.log(8)) == pytest.approx(8, rel=1e-15)
    assert perplexity(1e4) == math.inf
