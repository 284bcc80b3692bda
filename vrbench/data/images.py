"""Images in memory, split into train, validation and test: plain functions that a task's YAML names as `data`.

Every loader keeps the pixels as uint8 with the channels last, so that `batch.permute(0, 3, 1, 2)` is a channels_last
tensor without a copy. Splits come from `split_seed`, never from the run's seed. Loaders remember their last results
within a process: a serial sweep loads its data once. Nobody may write into the tensors they return.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from vrbench.data.splits import check_fraction, check_seed, check_size, cut, shuffled, split_off

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ImageData:
    """Images and class labels of the three splits.

    `images[split]` is uint8 of shape (N, H, W, C), `labels[split]` int64 of shape (N,) with values in
    [0, `classes`). Raises ValueError where a split is empty, labels leave that range, or image shapes differ.
    """

    images: dict[str, Tensor]
    labels: dict[str, Tensor]
    classes: int

    def __post_init__(self) -> None:
        for split in SPLITS:
            images, labels = self.images[split], self.labels[split]
            if images.dtype != torch.uint8 or images.ndim != 4:
                raise ValueError(f"{split} images: uint8 of shape (N, H, W, C) is needed, not {images.dtype}")
            if len(images) == 0 or len(images) != len(labels):
                raise ValueError(f"{split} split: {len(images)} images with {len(labels)} labels")
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.classes:
                wrong = low if low < 0 else high
                raise ValueError(f"{split} labels: {wrong} is outside 0 … {self.classes - 1}")
            if images.shape[1:] != self.images["train"].shape[1:]:
                raise ValueError(
                    f"{split} images: {tuple(images.shape[1:])} (height, width, channels) against "
                    f"{tuple(self.images['train'].shape[1:])} in train; all splits need one shape"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image as a model takes it: (channels, height, width)."""
        height, width, channels = self.images["train"].shape[1:]
        return channels, height, width


def to_uint8(values: Tensor, highest: float) -> Tensor:
    """Grey values in [0, `highest`] as uint8 in [0, 255], rounded to the nearest (halves to even).

    Raises ValueError where a value is not finite or outside the range.
    """
    values = values.double()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("pixels: some are NaN or infinite; clean the data first")
    if float(values.min()) < 0 or float(values.max()) > highest:
        raise ValueError(f"pixels: {float(values.min())} … {float(values.max())} leaves the range 0 … {highest}")
    return (values * (255 / highest)).round().to(torch.uint8)


def digits(val_fraction: float, test_fraction: float, split_seed: int, train_size: int | None) -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8×8 grey pixels, 10 classes; they ship with the library.

    The grey values 0 … 16 are spread over 0 … 255. Fractions are of all images; `train_size` keeps only so many
    training images (null: all). Raises ValueError for an argument out of range.
    """
    check_fraction("val_fraction", val_fraction)
    check_fraction("test_fraction", test_fraction)
    check_seed("split_seed", split_seed)
    check_size("train_size", train_size)
    return _digits(val_fraction, test_fraction, split_seed, train_size)


@functools.lru_cache(maxsize=4)
def _digits(val_fraction: float, test_fraction: float, split_seed: int, train_size: int | None) -> ImageData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = to_uint8(torch.from_numpy(bunch.images), highest=16).unsqueeze(-1)
    labels = torch.from_numpy(bunch.target).long()
    parts = split_off(shuffled(len(labels), split_seed), {"test": test_fraction, "val": val_fraction})
    parts["train"] = cut("train_size", parts["train"], train_size)
    return ImageData(
        {split: images[parts[split]] for split in SPLITS},
        {split: labels[parts[split]] for split in SPLITS},
        classes=10,
    )
