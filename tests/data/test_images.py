"""Loading images: the digits, data sets in the layout of the hub, and what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from small_images import encode, numbered

from vrbench.data import hub
from vrbench.data import images as images_module
from vrbench.data.decode import decode_all
from vrbench.data.images import SPLITS, ImageData, digits, hub_images, to_uint8

SHARED = Path(__file__).parents[2] / "../shared/data"


def write_split(
    folder: Path, split: str, pictures: list[bytes], labels: Sequence[int | None], classes: int | None = 3
) -> Path:
    """One split of a data set in the hub's layout."""
    import datasets

    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(classes) if classes else datasets.Value("int64")}
    )
    rows = {"img": [{"bytes": picture, "path": None} for picture in pictures], "label": labels}
    folder.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def hub_folder(tmp_path) -> Path:
    for split, first, count in (("train", 0, 40), ("test", 100, 10)):
        pictures = [encode(numbered(first + number)) for number in range(count)]
        write_split(tmp_path / "data", split, pictures, [number % 3 for number in range(count)])
    return tmp_path / "data"


def load(folder: Path, **options) -> ImageData:
    arguments = {"image_column": "img", "label_column": "label", "val_fraction": 0.25, "split_seed": 0}
    return hub_images(str(folder), **(arguments | {"train_size": None} | options))


# ---- digits ---------------------------------------------------------------------------------------------------------


def test_digits_keeps_every_image_once_with_its_label():
    from sklearn.datasets import load_digits

    data = digits(val_fraction=0.2, test_fraction=0.2, split_seed=0, train_size=None)
    assert {split: len(data.labels[split]) for split in SPLITS} == {"train": 1079, "val": 359, "test": 359}
    assert data.shape == (1, 8, 8)
    bunch = load_digits()
    spread = np.rint(bunch.data * 255 / 16).astype(int).tolist()
    expected = sorted((tuple(row), int(label)) for row, label in zip(spread, bunch.target, strict=True))
    found = [
        (tuple(image.flatten().tolist()), int(label))
        for split in SPLITS
        for image, label in zip(data.images[split], data.labels[split], strict=True)
    ]
    assert sorted(found) == expected


def test_digits_are_read_as_scikit_learn_reads_them(monkeypatch):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    table = images_module._digits_table()
    assert np.array_equal(table, np.column_stack([bunch.data, bunch.target]))
    assert table.dtype == bunch.data.dtype
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="sklearn"):
        images_module._digits_table()


def test_digits_are_cut_to_a_size_and_the_process_loads_them_once():
    whole = digits(0.2, 0.2, 0, None)
    small = digits(0.2, 0.2, 0, 100, 50, 30)
    for split, size in (("train", 100), ("val", 50), ("test", 30)):
        assert torch.equal(small.images[split], whole.images[split][:size])
        assert torch.equal(small.labels[split], whole.labels[split][:size])
    assert digits(0.2, 0.2, 0, 100, 50, 30) is small
    assert not torch.equal(digits(0.2, 0.2, 1, None).labels["test"], whole.labels["test"])


def test_a_small_train_size_keeps_its_share_of_validation_and_500_at_least():
    def sizes(**given) -> dict[str, int]:
        data = digits(**({"val_fraction": 0.6, "test_fraction": 0.2, "split_seed": 0, "train_size": None} | given))
        return {split: len(data.labels[split]) for split in SPLITS}

    assert sizes() == {"train": 360, "val": 1078, "test": 359}
    assert sizes(train_size=240) == {"train": 240, "val": 719, "test": 359}  # 1078 · 240/360
    assert sizes(train_size=24) == {"train": 24, "val": 500, "test": 359}
    assert sizes(train_size=24, val_fraction=0.2) == {"train": 24, "val": 359, "test": 359}
    assert sizes(train_size=24, val_size="all") == {"train": 24, "val": 1078, "test": 359}
    assert sizes(train_size=24, val_size=10) == {"train": 24, "val": 10, "test": 359}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.2, 0, None), "val_fraction=0: "),
        ((0.2, 1.0, 0, None), "test_fraction=1.0: "),
        ((0.2, 0.2, -1, None), "split_seed=-1: "),
        ((0.2, 0.2, 0, 0), "train_size=0: "),
        ((0.2, 0.2, 0, 5000), "train_size=5000: only 1079 examples"),
        ((0.2, 0.2, 0, None, 360), "val_size=360: only 359 examples are there; use all for all of them"),
        ((0.2, 0.2, 0, None, None, 360), "test_size=360: only 359 examples are there; use null"),
        (
            (0.2, 0.2, 0, None, "most"),
            "val_size=most: give a number of examples of at least 1, or null, or all for every one",
        ),
        ((0.2, 0.2, 0, None, True), "val_size=True: give a number"),
    ],
)
def test_digits_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        digits(*arguments)


def test_grey_values_are_spread_exactly_and_bad_ones_refused():
    assert to_uint8(torch.arange(17.0), 16).tolist() == [round(255 * value / 16) for value in range(17)]
    for bad in (float("nan"), float("inf"), -1.0, 17.0):
        with pytest.raises(ValueError, match="pixels: "):
            to_uint8(torch.tensor([1.0, bad]), 16)


# ---- the hub's layout -----------------------------------------------------------------------------------------------


def test_hub_images_reads_every_image_once_with_its_label(hub_folder):
    data = load(hub_folder)
    assert {split: len(data.labels[split]) for split in SPLITS} == {"train": 30, "val": 10, "test": 10}
    assert data.classes == 3
    assert data.shape == (3, 6, 5)
    numbers = {split: data.images[split][:, 0, 0, 0].long() for split in SPLITS}
    assert sorted(numbers["train"].tolist() + numbers["val"].tolist()) == list(range(40))
    assert sorted(numbers["test"].tolist()) == list(range(100, 110))
    for split, first in (("train", 0), ("val", 0), ("test", 100)):
        assert torch.equal(data.labels[split], (numbers[split] - first) % 3)
        expected = np.stack([numbered(number) for number in numbers[split].tolist()])
        assert np.array_equal(data.images[split].numpy(), expected)


def test_hub_images_decodes_only_what_it_keeps(hub_folder, monkeypatch):
    decoded: list[int] = []

    def counting(count, *arguments):
        decoded.append(count)
        return decode_all(count, *arguments)

    monkeypatch.setattr(images_module, "decode_all", counting)
    whole = load(hub_folder)
    images_module._hub_images.cache_clear()
    assert decoded == [30, 10, 10]
    small = load(hub_folder, train_size=4, test_size=3)
    assert decoded == [30, 10, 10, 4, 3], "validation images come from the cache on disk"
    assert torch.equal(small.images["train"], whole.images["train"][:4])
    assert torch.equal(small.images["test"], whole.images["test"][:3])
    assert torch.equal(small.images["val"], whole.images["val"])


def test_sizes_of_the_held_out_splits(hub_folder):
    whole = load(hub_folder)
    small = load(hub_folder, train_size=15)
    assert torch.equal(small.images["val"], whole.images["val"]), "ten are fewer than the least"
    three = load(hub_folder, val_size=3)
    assert {split: len(three.labels[split]) for split in SPLITS} == {"train": 30, "val": 3, "test": 10}
    assert torch.equal(three.images["val"], whole.images["val"][:3])
    assert torch.equal(three.images["train"], whole.images["train"]), "what is not validated on is not trained on"


def test_rows_are_named_by_file_and_by_what_is_wrong(tmp_path):
    good = [encode(numbered(number)) for number in range(10)]
    folder = write_split(tmp_path / "data", "test", good, [0, 1] * 5)
    write_split(folder, "train", good, [0, 1] * 5)
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00000-of-00002.parquet")
    write_split(folder, "train", [*good[:3], b"", *good[4:]], [0, 1] * 5)
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00001-of-00002.parquet")
    with pytest.raises(ValueError, match=r"^path=.*data: row 3 \(from 0\) of train-00001-of-00002\.parquet is empty"):
        load(folder)


def test_an_image_that_lies_in_a_file_of_its_own_is_named_by_it(tmp_path):
    for split, first in (("train", 0), ("test", 50)):
        for number in range(8):
            file = tmp_path / "data" / split / "ab"[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(numbered(first + number)))
    (tmp_path / "data/train/b/3.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^path=.*data: .*data/train/b/3\.png is empty \(0 bytes\)"):
        load(tmp_path / "data", image_column="image")


def test_a_data_set_of_very_many_files_is_not_read_file_by_file(tmp_path, monkeypatch):
    good = [encode(numbered(number)) for number in range(10)]
    folder = write_split(tmp_path / "data", "test", good, [0, 1] * 5)
    write_split(folder, "train", [*good[:9], good[9][:60]], [0, 1] * 5)
    monkeypatch.setattr(hub, "_MANY", 1)
    with pytest.raises(ValueError, match=r"^path=.*data: row 9 \(from 0\) of the train split is truncated"):
        load(folder)


def test_channels_and_image_size(hub_folder):
    grey = load(hub_folder, channels=1, image_size=3)
    assert grey.shape == (1, 3, 3)


def refusals(tmp_path: Path) -> dict[str, tuple[dict, str]]:
    good = [encode(numbered(number)) for number in range(10)]
    labels = [0, 1] * 5

    def made(name: str, train: list[bytes], train_labels: list[int | None], classes: int | None = 3) -> Path:
        write_split(tmp_path / name, "test", good, labels, classes)
        return write_split(tmp_path / name, "train", train, train_labels, classes)

    torn = made("torn", good, labels) / "train-00000-of-00001.parquet"
    torn.write_bytes(torn.read_bytes()[:200])
    lonely = write_split(tmp_path / "lonely", "train", good, labels)
    fine = made("fine", good, labels)
    undecodable = made("undecodable", [*good[:9], good[9][:60]], labels)
    return {
        "nowhere": ({"folder": tmp_path / "nowhere"}, "path=.*nowhere: no such folder"),
        "hub name": (
            {"folder": Path("nobody/nothing")},
            "path=nobody/nothing: no such folder, and the Hugging Face hub",
        ),
        "torn parquet": ({"folder": torn.parent}, r"path=.*torn: train-00000-of-00001\.parquet cannot be read \("),
        "no test": ({"folder": lonely}, "test_split=test: .* has the splits train"),
        "image column": ({"folder": fine, "image_column": "image"}, "image_column=image: .* columns img, label"),
        "no images": ({"folder": fine, "image_column": "label"}, "image_column=label: holds ClassLabel"),
        "label column": ({"folder": fine, "label_column": "fine"}, "label_column=fine: .* columns img, label"),
        "no labels": ({"folder": fine, "label_column": "img"}, "label_column=img: holds struct"),
        "negative": (
            {"folder": made("negative", good, [-1] * 10, None)},
            r"label_column=label: -1 in row 0 \(from 0\) of train-.*parquet is outside 0 … 1",
        ),
        "no label": (
            {"folder": made("unlabelled", good, [*labels[:4], None, *labels[5:]])},
            r"label_column=label: row 4 \(from 0\) of train-.*parquet has no label \(1 of 10 have none\)",
        ),
        "same split": ({"folder": fine, "test_split": "train"}, "test_split=train: is the training split"),
        "channels": ({"folder": fine, "channels": 2}, "channels=2: "),
        "image size": ({"folder": fine, "image_size": 0}, "image_size=0: "),
        "undecodable": (
            {"folder": undecodable, "val_fraction": 0.5},
            r"path=.*undecodable: row 9 \(from 0\) of train-00000-of-00001\.parquet is truncated",
        ),
        "sizes": (
            {"folder": made("sizes", [encode(numbered(0, 6 + n % 2)) for n in range(10)], labels)},
            r"path=.*: row \d \(from 0\) of train-.*parquet has .* set image_size",
        ),
    }


def test_hub_images_refuses_in_one_line_that_names_the_argument(tmp_path):
    for case, (options, message) in refusals(tmp_path).items():
        absent = case in ("nowhere", "hub name")
        with pytest.raises(FileNotFoundError if absent else ValueError, match=f"^{message}") as caught:
            load(**options)
        assert "\n" not in str(caught.value), case


# ---- the real thing -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_cifar10_and_mnist_load_from_a_local_folder():
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    cifar = load(SHARED / "cifar10", val_fraction=0.05, train_size=200, val_size="all", test_size=200)
    assert {split: len(cifar.labels[split]) for split in SPLITS} == {"train": 200, "val": 2500, "test": 200}
    assert cifar.shape == (3, 32, 32)
    assert cifar.labels["val"].bincount(minlength=10).min() > 200
    mean = cifar.images["val"].double().mean((0, 1, 2)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), rtol=0, atol=0.02)
    mnist = load(SHARED / "mnist", image_column="image", val_fraction=0.05, train_size=200, test_size=200)
    assert mnist.shape == (1, 28, 28)
    assert abs(mnist.images["val"].double().mean() / 255 - 0.1307) < 0.005
