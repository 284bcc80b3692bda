"""What lies in a folder of images: classes, splits and files, without opening any of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
SPLIT_FOLDERS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class ImageFolder:
    """`classes` in alphabetical order, and for each split that has a folder its (file, class number) in that order."""

    classes: list[str]
    files: dict[str, list[tuple[Path, int]]]


def scan(path: str) -> ImageFolder:
    """Find `<class>/<image>` or `<split>/<class>/<image>` under `path`; without split folders all is `train`.

    Images may lie deeper inside their class; hidden files and other file types are passed over. Raises
    FileNotFoundError where `path` is no folder, ValueError where it holds no classes, where a split lacks `train/` or
    has a class of its own, or where a class is empty.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"path={path}: no such folder; give one with a sub-folder of images for each class")
    folders = _folders(root)
    splits = {SPLIT_FOLDERS[folder.name]: folder for folder in folders if folder.name in SPLIT_FOLDERS}
    if splits and "train" not in splits:
        raise ValueError(f"path={path}: has {', '.join(sorted(splits))} but no train folder")
    splits = splits or {"train": root}
    classes = [folder.name for folder in _folders(splits["train"])]
    if len(classes) < 2:
        raise ValueError(
            f"path={path}: {splits['train']} holds {len(classes)} class folders, and two or more are needed"
        )
    files = {split: _labelled(path, folder, classes) for split, folder in splits.items()}
    return ImageFolder(classes, files)


def _folders(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _labelled(path: str, folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    files: list[tuple[Path, int]] = []
    for inner in _folders(folder):
        if inner.name not in classes:
            raise ValueError(f"path={path}: class {inner.name} of {folder.name}/ is not among the training classes")
        images = sorted(file for file in inner.rglob("*") if _is_image(file))
        if not images:
            raise ValueError(f"path={path}: class folder {inner} holds no image")
        files += [(image, classes.index(inner.name)) for image in images]
    if not files:
        raise ValueError(f"path={path}: {folder} holds no class folder with images")
    return files


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
