"""Loading images: splits, decoding, the cache of decoded pixels, and what is refused."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrbench.data import images as images_module
from vrbench.data.augment import Normalize, crop_flip, draw_crop_flip, random_crop_flip
from vrbench.data.decode import PixelFormat, cached, decode_all
from vrbench.data.images import SPLITS, ImageData, digits, hub_images, image_folder, to_uint8
from vrbench.data.splits import shuffled, split_off

SHARED = Path(__file__).parents[1] / "../shared/data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads what another one decoded, in memory or on disk."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for loader in (images_module._digits, images_module._hub_images, images_module._image_folder):
        loader.cache_clear()


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def numbered(number: int, height: int = 6, width: int = 5) -> np.ndarray:
    """An RGB image that tells its number: every pixel is (number, row, column)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, number), rows, columns], -1).astype(np.uint8)


def write_split(folder: Path, split: str, pictures: list[bytes], labels: list[int], classes: int | None = 3) -> Path:
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


# ---- splits ---------------------------------------------------------------------------------------------------------


def test_a_split_is_disjoint_complete_and_the_same_every_time():
    parts = split_off(shuffled(101, 7), {"test": 0.2, "val": 0.1})
    again = split_off(shuffled(101, 7), {"test": 0.2, "val": 0.1})
    assert {split: len(part) for split, part in parts.items()} == {"test": 20, "val": 10, "train": 71}
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(101))
    assert all(torch.equal(parts[split], again[split]) for split in parts)
    assert not torch.equal(shuffled(101, 7), shuffled(101, 8))


def test_a_split_without_examples_is_refused():
    with pytest.raises(ValueError, match=r"val_fraction=0.01: leaves no val example of 10"):
        split_off(shuffled(10, 0), {"val": 0.01})
    with pytest.raises(ValueError, match="leaves no train example"):
        split_off(shuffled(10, 0), {"test": 0.5, "val": 0.5})


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


def test_digits_train_size_cuts_training_alone_and_the_process_loads_once():
    whole = digits(0.2, 0.2, 0, None)
    small = digits(0.2, 0.2, 0, 100)
    assert torch.equal(small.images["train"], whole.images["train"][:100])
    assert torch.equal(small.images["val"], whole.images["val"])
    assert digits(0.2, 0.2, 0, 100) is small
    assert not torch.equal(digits(0.2, 0.2, 1, None).labels["test"], whole.labels["test"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.2, 0, None), "val_fraction=0: "),
        ((0.2, 1.0, 0, None), "test_fraction=1.0: "),
        ((0.2, 0.2, -1, None), "split_seed=-1: "),
        ((0.2, 0.2, 0, 0), "train_size=0: "),
        ((0.2, 0.2, 0, 5000), "train_size=5000: only 1079 examples"),
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


def test_channels_and_image_size(hub_folder):
    grey = load(hub_folder, channels=1, image_size=3)
    assert grey.shape == (1, 3, 3)


def refusals(tmp_path: Path) -> dict[str, tuple[dict, str]]:
    good = [encode(numbered(number)) for number in range(10)]
    labels = [0, 1] * 5

    def made(name: str, train: list[bytes], train_labels: list[int], classes: int | None = 3) -> Path:
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
        "torn parquet": ({"folder": torn.parent}, "path=.*torn: cannot be read as a data set"),
        "no test": ({"folder": lonely}, "test_split=test: .* has the splits train"),
        "image column": ({"folder": fine, "image_column": "image"}, "image_column=image: .* columns img, label"),
        "no images": ({"folder": fine, "image_column": "label"}, "image_column=label: holds ClassLabel"),
        "label column": ({"folder": fine, "label_column": "fine"}, "label_column=fine: .* columns img, label"),
        "no labels": ({"folder": fine, "label_column": "img"}, "label_column=img: holds struct"),
        "negative": ({"folder": made("negative", good, [-1] * 10, None)}, "label_column=label: -1 is outside 0 … 1"),
        "same split": ({"folder": fine, "test_split": "train"}, "test_split=train: is the training split"),
        "channels": ({"folder": fine, "channels": 2}, "channels=2: "),
        "image size": ({"folder": fine, "image_size": 0}, "image_size=0: "),
        "undecodable": ({"folder": undecodable, "val_fraction": 0.5}, r"path=.*: image \d+ cannot be decoded"),
        "sizes": (
            {"folder": made("sizes", [encode(numbered(0, 6 + n % 2)) for n in range(10)], labels)},
            r"path=.*: image \d+ has .* set image_size",
        ),
    }


def test_hub_images_refuses_in_one_line_that_names_the_argument(tmp_path):
    for case, (options, message) in refusals(tmp_path).items():
        with pytest.raises(ValueError, match=f"^{message}") as caught:
            load(**options)
        assert "\n" not in str(caught.value), case


# ---- decoding and its cache -----------------------------------------------------------------------------------------


def test_decoding_many_chunks_keeps_the_order():
    encoded = [encode(numbered(number % 256)[:, :, 0]) for number in range(1200)]
    pixels = decode_all(1200, lambda chunk: encoded[chunk.start : chunk.stop], PixelFormat(None, None), "x")
    assert pixels.shape == (1200, 6, 5, 1)
    assert pixels[:, 0, 0, 0].tolist() == [number % 256 for number in range(1200)]


def test_a_wide_image_is_scaled_and_cut_in_the_middle():
    left, middle, right = (np.full((8, 8), value, dtype=np.uint8) for value in (10, 200, 90))
    encoded = [encode(np.concatenate([left, middle, right], 1))]
    pixels = decode_all(1, lambda chunk: encoded, PixelFormat(4, None), "x")
    assert pixels.shape == (1, 4, 4, 1)
    assert (pixels[0, :, 1:3] == 200).all()


def test_colour_among_grey_and_deep_pixels_are_refused():
    grey, colour = encode(numbered(3)[:, :, 0]), encode(numbered(3))
    mixed = [grey, colour]
    with pytest.raises(ValueError, match="x: image 1 is in colour and the first is grey; set channels=3"):
        decode_all(2, lambda chunk: mixed[chunk.start : chunk.stop], PixelFormat(None, None), "x")
    both = decode_all(2, lambda chunk: mixed[chunk.start : chunk.stop], PixelFormat(None, 3), "x")
    assert (both[0] == 3).all()
    deep = [encode(np.full((4, 4), 40_000, dtype=np.uint16))]
    with pytest.raises(ValueError, match="x: image 0 has pixels of kind 'I;16'"):
        decode_all(1, lambda chunk: deep, PixelFormat(None, None), "x")


def test_the_cache_survives_a_torn_file_and_an_unwritable_folder(tmp_path, caplog):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    folder = tmp_path / "pixels"
    assert np.array_equal(cached(folder, ("key",), lambda: pixels), pixels)
    assert np.array_equal(cached(folder, ("key",), lambda: pytest.fail("decoded again")), pixels)
    assert np.array_equal(cached(folder, ("other",), lambda: pixels + 1), pixels + 1)
    assert not list(folder.glob("*.tmp"))
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(cached(folder, ("key",), lambda: pixels), pixels)
        assert "unreadable" in caplog.text
        (tmp_path / "file").write_text("not a folder")
        assert np.array_equal(cached(tmp_path / "file", ("key",), lambda: pixels), pixels)
        assert "not cached" in caplog.text


# ---- folders of images ----------------------------------------------------------------------------------------------


def write_folder(root: Path, names: list[str], first: int, count: int) -> None:
    for place, name in enumerate(names):
        (root / name / "deeper").mkdir(parents=True)
        (root / name / "notes.txt").write_text("no image")
        for number in range(count):
            pixels = numbered(first + place * count + number, 8, 8 + number)
            Image.fromarray(pixels).save(root / name / "deeper" / f"{number}.png")


def folder_data(root: Path, **options) -> ImageData:
    arguments = {"image_size": 8, "val_fraction": 0.25, "test_fraction": 0.25, "split_seed": 0, "train_size": None}
    return image_folder(str(root), **(arguments | options))


def numbers_of(data: ImageData, split: str) -> list[int]:
    return data.images[split][:, 4, 4, 0].tolist()


def test_a_folder_of_classes_is_split(tmp_path):
    write_folder(tmp_path / "all", ["cat", "ant"], 0, 8)
    data = folder_data(tmp_path / "all")
    assert data.shape == (3, 8, 8)
    assert {split: len(data.labels[split]) for split in SPLITS} == {"train": 8, "val": 4, "test": 4}
    assert sorted(number for split in SPLITS for number in numbers_of(data, split)) == list(range(16))
    for split in SPLITS:  # "ant" comes first in the alphabet, and was written second
        assert [int(number < 8) for number in numbers_of(data, split)] == data.labels[split].tolist()
    assert len(folder_data(tmp_path / "all", train_size=3).labels["train"]) == 3


def test_split_folders_are_respected_and_a_missing_one_is_drawn_from_train(tmp_path):
    write_folder(tmp_path / "train", ["a", "b"], 0, 8)
    write_folder(tmp_path / "test", ["a", "b"], 100, 3)
    data = folder_data(tmp_path)
    assert sorted(numbers_of(data, "test")) == list(range(100, 106))
    assert len(numbers_of(data, "val")) == 4
    assert sorted(numbers_of(data, "train") + numbers_of(data, "val")) == list(range(16))


def test_image_folder_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^path=.*nowhere: no such folder"):
        folder_data(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^path=.* holds 0 class folders"):
        folder_data(tmp_path)
    write_folder(tmp_path / "odd" / "train", ["a", "b"], 0, 4)
    write_folder(tmp_path / "odd" / "val", ["a", "c"], 0, 4)
    with pytest.raises(ValueError, match=r"^path=.*: class c of val/ is not among the training classes"):
        folder_data(tmp_path / "odd")
    write_folder(tmp_path / "bad", ["a", "b"], 0, 4)
    (tmp_path / "bad" / "a" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"^path=.*: image \d+ cannot be decoded"):
        folder_data(tmp_path / "bad")
    (tmp_path / "bad" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^path=.*empty holds no image"):
        folder_data(tmp_path / "bad")


# ---- augmentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_the_gather_equals_a_loop_over_the_images(padding):
    generator = torch.Generator().manual_seed(3)
    batch = torch.randint(0, 256, (50, 7, 6, 3), dtype=torch.uint8, generator=generator)
    rows, columns, flipped = draw_crop_flip(50, padding, True, generator)
    result = crop_flip(batch, rows, columns, flipped, padding)
    for number in range(50):
        big = torch.zeros(7 + 2 * padding, 6 + 2 * padding, 3, dtype=torch.uint8)
        big[padding : padding + 7, padding : padding + 6] = batch[number]
        top, left = int(rows[number]), int(columns[number])
        expected = big[top : top + 7, left : left + 6]
        assert torch.equal(result[number], expected.flip(1) if flipped[number] else expected)
    assert 10 < int(flipped.sum()) < 40
    assert set(rows.tolist()) == set(range(2 * padding + 1))


def test_draws_come_from_the_generator_alone_and_off_means_off():
    batch = torch.randint(0, 256, (16, 8, 8, 1), dtype=torch.uint8)
    first = random_crop_flip(batch, 2, True, torch.Generator().manual_seed(1))
    torch.manual_seed(99)
    assert torch.equal(random_crop_flip(batch, 2, True, torch.Generator().manual_seed(1)), first)
    assert not torch.equal(random_crop_flip(batch, 2, True, torch.Generator().manual_seed(2)), first)
    assert random_crop_flip(batch, 0, False, torch.Generator()) is batch
    assert not draw_crop_flip(1000, 2, False, torch.Generator())[2].any()


def test_normalise_is_exact_and_comes_in_channels_last_strides():
    batch = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8)
    mean, std = [0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]
    result = Normalize(mean, std, width=6)(batch)
    expected = (batch.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result.double(), expected.permute(0, 3, 1, 2), rtol=1e-6, atol=1e-6)


# ---- the real thing -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_cifar10_and_mnist_load_from_a_local_folder():
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    cifar = load(SHARED / "cifar10", val_fraction=0.05, train_size=200, test_size=200)
    assert {split: len(cifar.labels[split]) for split in SPLITS} == {"train": 200, "val": 2500, "test": 200}
    assert cifar.shape == (3, 32, 32)
    assert cifar.labels["val"].bincount(minlength=10).min() > 200
    mean = cifar.images["val"].double().mean((0, 1, 2)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), rtol=0, atol=0.02)
    mnist = load(SHARED / "mnist", image_column="image", val_fraction=0.05, train_size=200, test_size=200)
    assert mnist.shape == (1, 28, 28)
    assert abs(mnist.images["val"].double().mean() / 255 - 0.1307) < 0.005


def test_copies_of_an_image_stay_in_one_split(tmp_path):
    """Whatever class folder they lie in: what was trained on may not be tested."""
    from PIL import Image

    for number in range(30):
        for name in ("cat", "dog"):  # each picture twice
            path = tmp_path / "all" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (8 * number, number, 5)).save(path)
    for seed in range(3):
        data = folder_data(tmp_path / "all", split_seed=seed)
        seen = {split: {image.numpy().tobytes() for image in data.images[split]} for split in SPLITS}
        assert not seen["train"] & seen["test"]
        assert not seen["train"] & seen["val"]
        assert not seen["val"] & seen["test"]
        assert sum(len(data.images[split]) for split in SPLITS) == 60


def test_copies_between_splits_of_the_folder_are_told(tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog") * 4):
            path = tmp_path / "all" / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = number if split == "train" or number == 0 else 100 + number
            Image.new("RGB", (8, 8), (shade, 2, 5)).save(path)
    with pytest.warns(UserWarning, match=r"1 image stands in test and in (train|val)"):
        folder_data(tmp_path / "all")
