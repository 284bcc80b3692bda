"""Image classification: whole-batch augmentation on the device, cross-entropy (or squared error), accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from vrbench.contracts import WHOLE, Share
from vrbench.data.augment import Normalize, random_crop_flip
from vrbench.data.images import ImageData
from vrbench.data.placing import brought, placed

ImageBatch = tuple[Tensor, Tensor]
"""Images, float32 of shape (B, C, H, W), normalised, in channels_last strides; classes, int64 of shape (B,)."""


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """-Σ_c t_c log softmax(logits)_c for each example, t the label's one-hot vector, smoothed; shape (B,)."""
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def squared_error(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """½ Σ_c (logits_c - t_c)² for each example, t the label's one-hot vector, smoothed; shape (B,)."""
    classes = logits.shape[1]
    targets = functional.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return (logits - targets).square().sum(1) / 2


CRITERIA: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "cross_entropy": cross_entropy,
    "squared_error": squared_error,
}


class ImageClassification:
    """One of `data.classes` classes for each image; ranked by validation accuracy.

    Training drops an epoch's last incomplete batch; a training split smaller than `batch_size` is one batch.
    Training images are cropped out of themselves padded by `crop_padding` zeros and mirrored half of the time with
    `flip`; validation and test images never are. `mean` and `std` (one value a channel, for pixels on 0 … 1) normalise
    all of them. `criterion` is `cross_entropy` (nats) or `squared_error` (half the squared distance to the one-hot
    label, as in the edge-of-stability papers, arXiv 2103.00065). `eval_batch_size` None: 64 on a CPU, 512 elsewhere.
    `label_smoothing` acts on the training loss only. `top_k` adds the metric
    `accuracy_top<k>`. Raises ValueError for options that do not fit the data.
    """

    metric = "val/accuracy"
    direction: Literal["min", "max"] = "max"

    def __init__(
        self,
        name: str,
        data: ImageData,
        batch_size: int,
        eval_batch_size: int | None,
        crop_padding: int,
        flip: bool,
        mean: list[float],
        std: list[float],
        criterion: str,
        label_smoothing: float,
        top_k: int | None,
    ) -> None:
        channels, height, width = data.shape
        side = min(height, width)
        _check(_is_whole(batch_size, 1), f"batch_size={batch_size}: give a whole number of at least 1")
        _check(
            eval_batch_size is None or _is_whole(eval_batch_size, 1),
            f"eval_batch_size={eval_batch_size}: give a whole number of at least 1, or null",
        )
        _check(
            _is_whole(crop_padding, 0, side),
            f"crop_padding={crop_padding}: give a whole number from 0 (no cropping) to {side}, the images' size",
        )
        _check(isinstance(flip, bool), f"flip={flip}: give true or false")
        for key, values in {"mean": mean, "std": std}.items():
            _check(
                isinstance(values, list) and len(values) == channels and all(map(_is_finite, values)),
                f"{key}={values}: give a list of {channels} finite numbers, one for each channel of the images",
            )
        _check(all(0 < value <= 1 for value in std), f"std={std}: give numbers above 0, for pixels on 0 … 1")
        _check(criterion in CRITERIA, f"criterion={criterion}: choose one of {', '.join(CRITERIA)}")
        _check(
            _is_finite(label_smoothing) and 0 <= label_smoothing < 1,
            f"label_smoothing={label_smoothing}: give a number from 0 to below 1",
        )
        _check(
            top_k is None or _is_whole(top_k, 2, data.classes - 1),
            f"top_k={top_k}: give a whole number from 2 to {data.classes - 1}, or null to leave this metric out",
        )
        self.name = name
        self.input_shape = data.shape
        self.output_dim = data.classes
        self.batch_size = min(batch_size, len(data.labels["train"]))
        self.eval_batch_size = eval_batch_size
        self.batches_per_epoch = len(data.labels["train"]) // self.batch_size
        self.units_per_batch = {"images": self.batch_size}
        self.crop_padding = crop_padding
        self.flip = flip
        self.criterion = CRITERIA[criterion]
        self.label_smoothing = label_smoothing
        self.top_k = top_k
        self._device = torch.device("cpu")
        self._images = dict(data.images)
        self._labels = dict(data.labels)
        self._normalize = Normalize(mean, std, width)

    def to(self, device: torch.device) -> None:
        """Move labels (int64) and images (uint8; a split of 2 GB or less) to the device that trains."""
        self._device = device
        self._images = {split: placed(images, device) for split, images in self._images.items()}
        self._labels = {split: labels.to(device) for split, labels in self._labels.items()}
        self._normalize = self._normalize.to(device)

    def train_batches(
        self, order: Generator, augment: Generator, start: int = 0, share: Share = WHOLE
    ) -> Iterator[ImageBatch]:
        """One epoch in the order that `order` draws, from batch `start` on; each is augmented when it is asked for.

        An image is cropped and flipped in any share as it is in the whole batch.
        """
        images, labels = self._images["train"], self._labels["train"]
        chosen = torch.randperm(len(labels), generator=order).to(labels.device)
        for number in range(start, self.batches_per_epoch):
            index = chosen[number * self.batch_size : (number + 1) * self.batch_size]
            rows = share.of(index)
            some = brought(images.index_select(0, rows.to(images.device)), self._device)
            cropped = random_crop_flip(some, self.crop_padding, self.flip, augment, share)
            yield self._normalize(cropped), labels[rows]

    def loss(self, model: nn.Module, batch: ImageBatch, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of the batch, in float32 whatever precision the model computes in; metric `accuracy`."""
        images, labels = batch
        logits = model(images).float()
        loss = self.criterion(logits, labels, self.label_smoothing).mean()
        return loss, {"accuracy": _hits(logits.detach(), labels, 1) / len(labels)}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Literal["val", "test"]) -> dict[str, float]:
        """`loss` (without smoothing), `accuracy` and perhaps `accuracy_top<k>`, means over the whole split."""
        ranks = {"accuracy": 1} if self.top_k is None else {"accuracy": 1, f"accuracy_top{self.top_k}": self.top_k}
        sums: list[Tensor] = []
        size = self.eval_batch_size or (64 if self._device.type == "cpu" else 512)
        for images, labels in self._in_order(split, len(self._labels[split]), size):
            logits = model(images).float()
            loss = self.criterion(logits, labels, 0.0).sum()
            sums.append(torch.stack([loss, *(_hits(logits, labels, k) for k in ranks.values())]))
        means = torch.stack(sums).cpu().double().sum(0) / len(self._labels[split])
        return dict(zip(["loss", *ranks], means.tolist(), strict=True))

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, ImageBatch]]:
        """The first `size` training images, unaugmented, in chunks; each with its share of them."""
        _check(size >= 1, f"size={size}: give at least 1 example")
        _check(microbatch >= 1, f"microbatch={microbatch}: give at least 1 example")
        size = min(size, len(self._labels["train"]))
        return [(len(batch[1]) / size, batch) for batch in self._in_order("train", size, microbatch)]

    def _in_order(self, split: str, size: int, batch_size: int) -> Iterator[ImageBatch]:
        """The first `size` examples of a split as they lie, unaugmented; the last batch may be smaller."""
        for first in range(0, size, batch_size):
            chosen = slice(first, min(first + batch_size, size))
            yield self._normalize(brought(self._images[split][chosen], self._device)), self._labels[split][chosen]


def _hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """How many labels are among the `k` largest logits of their row; float32 scalar, no host sync."""
    best = logits.argmax(1, keepdim=True) if k == 1 else logits.topk(k, 1).indices
    return (best == labels[:, None]).any(1).sum().float()


def _is_whole(value: object, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
