"""Fine-tuning on prompt-completion pairs: the loss is that of the answer alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from vrbench.contracts import WHOLE, Share
from vrbench.data.text import SPLITS, Pairs
from vrbench.data.tokenization import Encoder, Tokenizer
from vrbench.metrics.language import mean_loss, perplexity, token_scores

IGNORED = -100
"""Target of a position that is not scored: the question and the padding."""

log = logging.getLogger(__name__)


class QuestionAnswering:
    """Predict the completion of a prompt, token by token.

    An example is prompt, completion and the tokenizer's separator; prompt and completion are encoded one by one and
    joined as they are, so a space between them belongs in one of them. A batch is (tokens, targets), int64 (B, L) both,
    padded at the end to its longest example (L ≤ context); targets are -100 but for the completion and its separator.
    An example of more than `context` + 1 tokens is refused, or left out and counted in a warning (`drop_long`).

    Metrics over the answers' tokens: `loss` (nats a token), `perplexity`, `accuracy`, and `exact_match`, the share of
    examples whose every answer token is the likeliest one after the true tokens before it, which is to say that
    greedy decoding would write this very answer.
    """

    metric = "val/loss"
    direction: Literal["min", "max"] = "min"

    def __init__(
        self,
        name: str,
        batch_size: int,
        eval_batch_size: int,
        context: int,
        drop_long: bool,
        data: Pairs,
        tokenizer: Tokenizer,
    ) -> None:
        for argument, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size), ("context", context)):
            if value < 1:
                raise ValueError(f"{argument}={value}: must be 1 or more")
        self.name = name
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.context = context
        self.drop_long = drop_long
        encoder = tokenizer.fit([prompt + completion for prompt, completion in data.train])
        self.input_shape: tuple[int, ...] = (context,)
        self.output_dim = encoder.vocab_size
        self.tokens: dict[str, Tensor] = {}
        self.targets: dict[str, Tensor] = {}
        self.lengths: dict[str, Tensor] = {}
        for split in SPLITS:
            self._encode(split, getattr(data, split), encoder)
        self.batches_per_epoch = len(self.tokens["train"]) // batch_size
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"batch_size={batch_size}: the training split has {len(self.tokens['train'])} examples; choose less"
            )
        self.units_per_batch = {"examples": batch_size}

    def _encode(self, split: str, pairs: list[tuple[str, str]], encoder: Encoder) -> None:
        """Fill the split's padded tokens (N, longest), targets of the same shape, and lengths (N,), all int64."""
        examples = []
        for prompt, completion in pairs:
            question, answer = list(encoder.encode(prompt).ids[:-1]), list(encoder.encode(completion).ids)
            if not question:
                raise ValueError(f"data: the prompt {prompt!r} ({split}) has no token in it")
            examples.append((question, answer))
        fitting = [(q, a) for q, a in examples if len(q) + len(a) <= self.context + 1]
        too_long = len(examples) - len(fitting)
        if too_long and not self.drop_long:
            longest = max(len(q) + len(a) for q, a in examples) - 1
            raise ValueError(
                f"context={self.context}: {too_long} of {len(examples)} {split} examples are longer; "
                f"set task.context={longest}, or task.drop_long=true to leave them out"
            )
        if not fitting:
            raise ValueError(f"context={self.context}: no {split} example is that short; choose a longer context")
        if too_long:
            log.warning("task.drop_long=true: %d of %d %s examples left out", too_long, len(examples), split)
        lengths = torch.tensor([len(q) + len(a) - 1 for q, a in fitting])
        shape = (len(fitting), int(lengths.max()))
        tokens, targets = torch.full(shape, encoder.separator), torch.full(shape, IGNORED)
        for row, (question, answer) in enumerate(fitting):
            end = int(lengths[row])
            tokens[row, :end] = torch.tensor(question + answer[:-1])
            targets[row, end - len(answer) : end] = torch.tensor(answer)
        self.tokens[split], self.targets[split], self.lengths[split] = tokens, targets, lengths

    def to(self, device: torch.device) -> None:
        """Move tokens and targets to the device; the lengths stay on the CPU, where batches are cut to size."""
        self.tokens = {split: tokens.to(device) for split, tokens in self.tokens.items()}
        self.targets = {split: targets.to(device) for split, targets in self.targets.items()}

    def train_batches(
        self, order: Generator, augment: Generator, start: int = 0, share: Share = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in a new order; what fills no batch is left out. A share is padded as its whole batch is."""
        shuffled = torch.randperm(len(self.tokens["train"]), generator=order)
        for batch in range(start, self.batches_per_epoch):
            rows = shuffled[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self._cut("train", share.of(rows), int(self.lengths["train"][rows].max()))

    def loss(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy over the answers' tokens, in nats and float32."""
        tokens, targets = batch
        return mean_loss(model(tokens), targets, ignore_index=IGNORED), {}

    def weight(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """How many tokens of answers the loss of a batch is the mean over."""
        return (batch[1] != IGNORED).sum()

    def evaluate(self, model: nn.Module, split: Literal["val", "test"]) -> dict[str, float]:
        """Loss, perplexity, accuracy and exact match over all answers of the split."""
        nats, right, scored, exact = 0.0, 0, 0, 0
        examples = len(self.tokens[split])
        for some in torch.arange(examples).split(self.eval_batch_size):
            tokens, targets = self._cut(split, some)
            answer = targets != IGNORED
            losses, correct = token_scores(model(tokens), targets.where(answer, 0))
            nats += float(losses[answer].cpu().double().sum())
            right += int(correct[answer].sum())
            scored += int(answer.sum())
            exact += int((correct | ~answer).all(1).sum())
        loss = nats / scored
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "accuracy": right / scored,
            "exact_match": exact / examples,
        }

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, tuple[Tensor, Tensor]]]:
        """The first `size` training examples, each chunk weighted by its share of the answers' tokens."""
        size = min(size, len(self.tokens["train"]))
        chunks = [self._cut("train", some) for some in torch.arange(size).split(microbatch)]
        counts = [int((targets != IGNORED).sum()) for _, targets in chunks]
        return [(count / sum(counts), chunk) for count, chunk in zip(counts, chunks, strict=True)]

    def _cut(self, split: str, rows: Tensor, longest: int | None = None) -> tuple[Tensor, Tensor]:
        """Tokens and targets, padded to `longest`: that of the rows where it is not given."""
        if longest is None:
            longest = int(self.lengths[split][rows].max())
        rows = rows.to(self.tokens[split].device, non_blocking=True)
        return self.tokens[split][rows, :longest], self.targets[split][rows, :longest]
