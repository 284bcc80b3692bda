"""Folders of classes: read, split without copies on both sides, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from small_images import numbered

from vrbench.data.images import SPLITS, ImageData, image_folder


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


def test_a_folder_of_its_own_is_cut_in_the_split_seeds_order(tmp_path):
    """Its files lie class by class: the first of them would be of one class."""
    write_folder(tmp_path / "train", ["a", "b"], 0, 8)
    write_folder(tmp_path / "val", ["a", "b"], 50, 20)
    write_folder(tmp_path / "test", ["a", "b"], 100, 20)
    whole, again = folder_data(tmp_path), folder_data(tmp_path, val_size=12, test_size=40)
    assert sorted(numbers_of(whole, "val")) == list(range(50, 90))
    kept = numbers_of(again, "val")
    assert len(set(kept)) == 12
    assert {number < 70 for number in kept} == {True, False}
    assert again.labels["val"].tolist() == [int(number >= 70) for number in kept]
    assert numbers_of(folder_data(tmp_path, val_size=12, train_size=5), "val") == kept
    assert numbers_of(folder_data(tmp_path, val_size=12, split_seed=1), "val") != kept
    assert numbers_of(again, "test") == numbers_of(whole, "test")


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
    with pytest.raises(ValueError, match=r"^path=.*bad: a/torn\.jpg is not an image"):
        folder_data(tmp_path / "bad")
    (tmp_path / "bad" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^path=.*empty holds no image"):
        folder_data(tmp_path / "bad")


def test_copies_of_an_image_stay_in_one_split(tmp_path):
    """Whatever class folder they lie in: what was trained on may not be tested."""
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
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog") * 4):
            path = tmp_path / "all" / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = number if split == "train" or number == 0 else 100 + number
            Image.new("RGB", (8, 8), (shade, 2, 5)).save(path)
    with pytest.warns(UserWarning, match=r"1 image stands in test and in (train|val)"):
        folder_data(tmp_path / "all")
