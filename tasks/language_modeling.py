"""Language modelling: predict each token of a text from those before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from vrbench.contracts import WHOLE, Share
from vrbench.data.placing import brought, placed
from vrbench.data.text import SPLITS, Corpus
from vrbench.data.tokenization import Tokenizer
from vrbench.data.tokens import tokenize
from vrbench.metrics.language import mean_loss, perplexity, token_scores, unigram_loss

WINDOWS = ("contiguous", "random")


def scoring_windows(targets: int, context: int, stride: int) -> list[tuple[int, int]]:
    """How evaluation covers `targets` predictions, each once, by windows of `context` ≤ `targets` predictions.

    Returns (start, skip) for each window: it predicts start … start + context - 1, and the first `skip` of these were
    scored by the window before. The first window scores all it predicts, the others their last `stride`, so that each
    of theirs sees context - stride tokens or more; the last window is moved back to end with the text.
    """
    windows = [(0, 0)]
    done = context
    while done < targets:
        end = min(done + stride, targets)
        windows.append((end - context, done - (end - context)))
        done = end
    return windows


class LanguageModeling:
    """Next-token prediction on the token stream of a corpus.

    A batch is int64 (batch_size, context + 1): inputs and, one place on, their targets. `windows` says where training
    sequences begin: `contiguous` cuts the stream into neighbouring sequences, every token a target once an epoch (but
    for the rest that fills no batch), in a new order each epoch; `random` draws as many beginnings anywhere.

    Evaluation scores every token of the split once. `stride` (1 … context) is how far the window moves: null is
    `context`, windows side by side; less gives each token more context at more cost. Metrics: `loss` (nats a token),
    `perplexity`, `accuracy` (next token), `bits_per_byte` (over the text bytes that vrbench.data.tokenization counts),
    and `unigram_perplexity`: that of the training split's token frequencies (add-one smoothed) on the
    same tokens.

    Token streams are mapped from disk. Those of up to 2 GB are copied to an accelerator; of longer ones each batch is.
    """

    metric = "val/loss"
    direction: Literal["min", "max"] = "min"

    def __init__(
        self,
        name: str,
        batch_size: int,
        eval_batch_size: int,
        context: int,
        windows: str,
        stride: int | None,
        data: Corpus,
        tokenizer: Tokenizer,
    ) -> None:
        for argument, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size), ("context", context)):
            if value < 1:
                raise ValueError(f"{argument}={value}: must be 1 or more")
        if windows not in WINDOWS:
            raise ValueError(f"windows={windows}: must be {' or '.join(WINDOWS)}")
        if stride is not None and not 1 <= stride <= context:
            raise ValueError(f"stride={stride}: must lie between 1 and context={context}, or be null")
        self.name = name
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.context = context
        self.windows = windows
        self.stride = context if stride is None else stride
        try:
            streams = tokenize(data, tokenizer)
        except ValueError as error:  # of data that are read here
            raise ValueError(f"data.{error}") from error
        for split in SPLITS:
            tokens = len(streams.ids[split]) - 1
            if tokens < context:
                raise ValueError(
                    f"context={context}: longer than the {split} split, which has {tokens} tokens; choose a shorter one"
                )
        self.input_shape: tuple[int, ...] = (context,)
        self.output_dim = streams.vocab_size
        self.text_bytes = streams.text_bytes
        self.unigram_loss = {split: unigram_loss(streams.counts["train"], streams.counts[split]) for split in SPLITS}
        self.device = torch.device("cpu")
        self.streams = {split: torch.from_numpy(streams.ids[split]) for split in SPLITS}
        self.sequences = (len(self.streams["train"]) - 1) // context
        self.batches_per_epoch = self.sequences // batch_size
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"batch_size={batch_size}: the training split has only {self.sequences} sequences of "
                f"context={context}; choose smaller ones"
            )
        self.units_per_batch = {"tokens": batch_size * context}

    def to(self, device: torch.device) -> None:
        """Batches are made on this device, or brought there where the stream is long."""
        self.device = device
        self.streams = {  # int32, because not every device can index uint16
            split: placed(stream, device, torch.int32) for split, stream in self.streams.items()
        }

    def train_batches(
        self, order: Generator, augment: Generator, start: int = 0, share: Share = WHOLE
    ) -> Iterator[Tensor]:
        """One epoch of int64 (batch_size, context + 1)."""
        stream = self.streams["train"]
        wanted = self.batches_per_epoch * self.batch_size
        if self.windows == "random":
            begins = torch.randint(len(stream) - self.context, (wanted,), generator=order)
        else:
            begins = torch.randperm(self.sequences, generator=order)[:wanted] * self.context
        begins = begins.to(stream.device)
        for batch in range(start, self.batches_per_epoch):
            yield self._cut("train", share.of(begins[batch * self.batch_size : (batch + 1) * self.batch_size]))

    def loss(self, model: nn.Module, batch: Tensor, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy over the batch's tokens, in nats and float32."""
        return mean_loss(model(batch[:, :-1]), batch[:, 1:]), {}

    def evaluate(self, model: nn.Module, split: Literal["val", "test"]) -> dict[str, float]:
        """Loss, perplexity, bits per byte and accuracy over the whole split, beside the unigram model's perplexity."""
        stream = self.streams[split]
        targets = len(stream) - 1
        windows = torch.tensor(scoring_windows(targets, self.context, self.stride), device=stream.device)
        places = torch.arange(self.context, device=stream.device)
        nats, right = 0.0, 0
        for some in windows.split(self.eval_batch_size):
            tokens = self._cut(split, some[:, 0])
            losses, correct = token_scores(model(tokens[:, :-1]), tokens[:, 1:])
            scored = (places >= some[:, 1:]).to(self.device)
            nats += float(losses[scored].cpu().double().sum())
            right += int(correct[scored].sum())
        loss = nats / targets
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_byte": nats / math.log(2) / self.text_bytes[split],
            "accuracy": right / targets,
            "unigram_perplexity": perplexity(self.unigram_loss[split]),
        }

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, Tensor]]:
        """The first `size` sequences of the training text, side by side."""
        size = min(size, self.sequences)
        begins = torch.arange(size, device=self.streams["train"].device) * self.context
        return [(len(some) / size, self._cut("train", some)) for some in begins.split(microbatch)]

    def _cut(self, split: str, begins: Tensor) -> Tensor:
        """Sequences of context + 1 tokens, int64."""
        return brought(self.streams[split].unfold(0, self.context + 1, 1)[begins].long(), self.device)
