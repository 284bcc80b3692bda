"""Images in memory, split into train, validation and test: plain functions that a task's YAML names as `data`.

Every loader keeps the pixels as uint8 with the channels last, so that `batch.permute(0, 3, 1, 2)` is a channels_last
tensor without a copy. Splits come from `split_seed`, never from the run's seed. Loaders remember their last results
within a process, by the content of local data: a serial sweep loads its data once. Nobody may write into the tensors
they return.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vrbench.data.decode import cached, decode_all
from vrbench.data.folders import scan
from vrbench.data.hub import Source
from vrbench.data.pixels import PixelFormat
from vrbench.data.splits import Size, Sizes, check_fraction, check_seed, shuffled, split_off
from vrbench.runs.content import content_hash, file_hashes

if TYPE_CHECKING:
    import datasets
    import numpy as np

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


def digits(
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    train_size: int | None,
    val_size: Size = None,
    test_size: int | None = None,
) -> ImageData:
    """scikit-learn's 1,797 handwritten digits, 8×8 grey pixels, 10 classes; they ship with the library.

    The grey values 0 … 16 are spread over 0 … 255. Fractions are of all images; sizes keep so many images of a split,
    drawn by `split_seed` (null: all; with a `train_size` and no `val_size` validation keeps the same share, 500 or
    more). Raises ValueError for an argument out of range.
    """
    check_fraction("val_fraction", val_fraction)
    check_fraction("test_fraction", test_fraction)
    check_seed("split_seed", split_seed)
    return _digits(val_fraction, test_fraction, split_seed, Sizes(train_size, val_size, test_size))


def _digits_table() -> np.ndarray:
    """Rows of 64 grey values and a class: the file that scikit-learn ships, which its own import reads in seconds.

    Raises ModuleNotFoundError where scikit-learn is not installed.
    """
    import numpy as np

    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
    file = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(file, delimiter=",")


@functools.lru_cache(maxsize=4)
def _digits(val_fraction: float, test_fraction: float, split_seed: int, sizes: Sizes) -> ImageData:
    table = torch.from_numpy(_digits_table())
    images = to_uint8(table[:, :-1].reshape(-1, 8, 8), highest=16).unsqueeze(-1)
    labels = table[:, -1].long()
    parts = split_off(shuffled(len(labels), split_seed), {"test": test_fraction, "val": val_fraction})
    parts = _kept(parts, sizes)
    return ImageData(
        {split: images[parts[split]] for split in SPLITS},
        {split: labels[parts[split]] for split in SPLITS},
        classes=10,
    )


def hub_images(
    path: str,
    image_column: str,
    label_column: str,
    val_fraction: float,
    split_seed: int,
    train_size: int | None,
    val_size: Size = None,
    test_size: int | None = None,
    config_name: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    image_size: int | None = None,
    channels: int | None = None,
    revision: str | None = None,
) -> ImageData:
    """Images from the Hugging Face hub (`path` is a name) or from a local folder of the same layout.

    Validation is the share `val_fraction` of `train_split`, drawn by `split_seed`; the test images are `test_split`,
    which training never sees. Sizes keep so many images of a split, drawn by `split_seed` (null: all; with a
    `train_size` and no `val_size` validation keeps the same share, 500 or more). `config_name`, `image_column` and
    `label_column` are the data set's own words; `revision` is a commit, branch or tag of the hub's repository (null:
    its newest). `image_size` scales and cuts to a square (null: the images have one size already); `channels` is 1, 3,
    or null for the images' own. Only the images that are kept are decoded; their pixels are cached in the folder of
    `datasets`.

    Raises FileNotFoundError for a path that is no data set and ValueError (one sentence that begins with the argument's
    name) for files that cannot be read, an unknown column or split, labels that are no class numbers, an image that
    cannot be used, and for arguments out of range.
    """
    if not isinstance(path, str):
        raise ValueError(f"path={path}: give a name on the Hugging Face hub or a local folder")
    check_fraction("val_fraction", val_fraction)
    check_seed("split_seed", split_seed)
    sizes = Sizes(train_size, val_size, test_size)
    if train_split == test_split:
        raise ValueError(f"test_split={test_split}: is the training split; the two must be disjoint")
    columns = (image_column, label_column)
    source = Source.of(path, config_name, revision)
    wanted = PixelFormat(image_size, channels)
    return _hub_images(source, columns, (train_split, test_split), val_fraction, split_seed, sizes, wanted)


@functools.lru_cache(maxsize=2)
def _hub_images(
    source: Source,
    columns: tuple[str, str],
    names: tuple[str, str],
    val_fraction: float,
    split_seed: int,
    sizes: Sizes,
    wanted: PixelFormat,
) -> ImageData:
    path, sources = source.path, source.load()
    tables = [_table(path, sources, key, name) for key, name in zip(("train_split", "test_split"), names, strict=True)]
    labels = [_labels(source, table, columns[1]) for table in tables]
    classes = _classes(source, tables, columns[1], labels)

    parts = split_off(shuffled(len(tables[0]), split_seed), {"val": val_fraction})
    parts = _kept(parts | {"test": shuffled(len(tables[1]), split_seed)}, sizes)
    origin = {"train": 0, "val": 0, "test": 1}
    return ImageData(
        {split: _pixels(source, tables[origin[split]], columns[0], parts[split], wanted) for split in SPLITS},
        {split: labels[origin[split]][parts[split]] for split in SPLITS},
        classes,
    )


def _kept(parts: dict[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """The first of each split, as many as are kept: the order in which they lie is the split seed's."""
    kept = sizes.kept({split: len(rows) for split, rows in parts.items()})
    return {split: rows[: kept[split]] for split, rows in parts.items()}


def _table(path: str, sources: datasets.DatasetDict, key: str, split: str) -> datasets.Dataset:
    if split not in sources:
        raise ValueError(f"{key}={split}: {path} has the splits {', '.join(sources)}")
    if len(sources[split]) == 0:
        raise ValueError(f"{key}={split}: this split of {path} is empty")
    return sources[split]


def _check_column(table: datasets.Dataset, key: str, column: str) -> None:
    if column not in table.column_names:
        raise ValueError(f"{key}={column}: the data set has the columns {', '.join(table.column_names)}")


def _labels(source: Source, table: datasets.Dataset, column: str) -> Tensor:
    """The labels of a whole split, int64; refuses what is not an integer class number."""
    _check_column(table, "label_column", column)
    values = table.select_columns([column]).with_format("arrow")[:].column(column)
    if not str(values.type).startswith(("int", "uint")):
        raise ValueError(f"label_column={column}: holds {values.type}, and class numbers are needed")
    if values.null_count:
        first = source.row(str(table.split), values.is_null().to_pylist().index(True))
        raise ValueError(
            f"label_column={column}: {first} has no label ({values.null_count} of {len(values)} have none)"
        )
    return torch.from_numpy(values.to_numpy().astype("int64"))


def _classes(source: Source, tables: list[datasets.Dataset], column: str, labels: list[Tensor]) -> int:
    """Number of classes: as the data set states it, else the highest label plus one; refuses labels outside."""
    high = max(int(part.max()) for part in labels)
    classes: int = getattr(tables[0].features[column], "num_classes", high + 1)
    for table, part in zip(tables, labels, strict=True):
        wrong = torch.nonzero((part < 0) | (part >= classes))
        if len(wrong):
            row, label = source.row(str(table.split), int(wrong[0])), int(part[wrong[0]])
            raise ValueError(
                f"label_column={column}: {label} in {row} is outside 0 … {classes - 1}; is every split labelled?"
            )
    return classes


def _pixels(source: Source, table: datasets.Dataset, column: str, rows: Tensor, wanted: PixelFormat) -> Tensor:
    import datasets

    _check_column(table, "image_column", column)
    if not isinstance(table.features[column], datasets.Image):
        raise ValueError(f"image_column={column}: holds {table.features[column]}, not images")
    encoded = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    numbers = rows.tolist()

    def fetch(chunk: range) -> list[bytes | None]:
        return [_bytes(cell) for cell in encoded[numbers[chunk.start : chunk.stop]][column]]

    def name(number: int) -> str:
        cell = encoded[numbers[number]][column]
        if cell is not None and cell["bytes"] is None and cell["path"] is not None:
            return str(cell["path"])
        return source.row(str(table.split), numbers[number])

    chosen = hashlib.blake2s(rows.numpy().tobytes()).hexdigest()
    make = functools.partial(decode_all, len(numbers), fetch, wanted, f"path={source.path}", name)
    held = (source.content, source.config_name, str(table.split)) if source.content else table._fingerprint
    return torch.from_numpy(cached(_cache_folder(), (held, column, chosen, wanted), make))


def _bytes(cell: Mapping[str, Any] | None) -> bytes | None:
    """What a cell of encoded images holds or points to; None where there is nothing in it."""
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        return None
    encoded: bytes = Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]
    return encoded


def _cache_folder() -> Path:
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "vrbench-images"


def image_folder(
    path: str,
    image_size: int,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    train_size: int | None,
    val_size: Size = None,
    test_size: int | None = None,
    channels: int = 3,
) -> ImageData:
    """A local folder with one sub-folder of images per class, or with such folders in `train/`, `val/` and `test/`.

    Classes are the sub-folders in alphabetical order. A split without a folder of its own is drawn from the others by
    `split_seed`: the share `val_fraction` or `test_fraction` of `train/` (or of everything), copies of a file in one
    split; where the folder's own splits share files, a warning says so. Sizes keep so many images of a split, drawn by
    `split_seed` (null: all; with a `train_size` and no `val_size` validation keeps the same share, 500 or more). Each
    image is scaled until its shorter side is `image_size` and cut to the central square. All images lie in memory:
    224×224 RGB pixels are 150 kB.

    Raises ValueError or FileNotFoundError (one sentence that begins with the argument's name) for a path that holds no
    such folders, classes that differ between splits, an image that cannot be decoded, and for arguments out of range.
    """
    if not isinstance(path, str):
        raise ValueError(f"path={path}: give a local folder")
    check_fraction("val_fraction", val_fraction)
    check_fraction("test_fraction", test_fraction)
    check_seed("split_seed", split_seed)
    sizes = Sizes(train_size, val_size, test_size)
    wanted = PixelFormat(image_size, channels)
    scan(path)
    content = content_hash(Path(path).expanduser())
    return _image_folder(path, content, val_fraction, test_fraction, split_seed, sizes, wanted)


@functools.lru_cache(maxsize=2)
def _image_folder(
    path: str,
    content: str,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    sizes: Sizes,
    wanted: PixelFormat,
) -> ImageData:
    found = scan(path)
    missing = {
        split: fraction
        for split, fraction in {"test": test_fraction, "val": val_fraction}.items()
        if split not in found.files
    }
    pool = found.files.pop("train")
    drawn = _copies_together(path, split_off(shuffled(len(pool), split_seed), missing), [file for file, _ in pool])
    files = found.files | {split: [pool[number] for number in rows.tolist()] for split, rows in drawn.items()}
    _warn_of_copies(path, {split: [file for file, _ in labelled] for split, labelled in files.items()})
    kept = sizes.kept({split: len(labelled) for split, labelled in files.items()})
    files |= {
        split: [labelled[number] for number in shuffled(len(labelled), split_seed)[: kept[split]].tolist()]
        for split, labelled in found.files.items()
        if kept[split] < len(labelled)  # all of a folder of its own stay in the order of their names
    }
    files |= {split: files[split][: kept[split]] for split in drawn}
    return ImageData(
        {split: _read_files(path, content, [file for file, _ in files[split]], wanted) for split in SPLITS},
        {split: torch.tensor([label for _, label in files[split]]) for split in SPLITS},
        len(found.classes),
    )


def _copies_together(path: str, parts: dict[str, Tensor], files: list[Path]) -> dict[str, Tensor]:
    """The same split, with copies of a file in the part of the first of them: none may be seen in training and test."""
    hashes = file_hashes(files)
    home: dict[bytes, str] = {}
    moved: dict[str, list[int]] = {split: [] for split in parts}
    for split, rows in parts.items():
        for number in rows.tolist():
            moved[home.setdefault(hashes[number], split)].append(number)
    if empty := [split for split, rows in moved.items() if not rows]:
        raise ValueError(
            f"path={path}: the {empty[0]} split is empty, because its images are copies of others; add images"
        )
    return {split: torch.tensor(rows) for split, rows in moved.items()}


def _warn_of_copies(path: str, files: dict[str, list[Path]]) -> None:
    """Say so where the folder's own splits share files: that is the data's, and not ours to change."""
    hashes = {split: set(file_hashes(own)) for split, own in files.items()}
    for one, other in itertools.combinations(hashes, 2):
        if shared := len(hashes[one] & hashes[other]):
            copies = "1 image stands" if shared == 1 else f"{shared} images stand"
            warnings.warn(f"path={path}: {copies} in {one} and in {other}", stacklevel=2)


def _read_files(path: str, content: str, files: list[Path], wanted: PixelFormat) -> Tensor:
    def fetch(chunk: range) -> list[bytes]:
        return [file.read_bytes() for file in files[chunk.start : chunk.stop]]

    root = Path(path).expanduser()
    names = [str(file.relative_to(root)) for file in files]
    chosen = hashlib.blake2s(repr(names).encode()).hexdigest()
    make = functools.partial(decode_all, len(files), fetch, wanted, f"path={path}", names.__getitem__)
    return torch.from_numpy(cached(_cache_folder(), ("folder", content, chosen, wanted), make))
