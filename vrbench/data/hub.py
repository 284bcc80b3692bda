"""Data sets through the `datasets` library: where one lies, and manners: errors are raised, bars are for terminals."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vrbench.data.plain_text import not_utf8
from vrbench.runs.content import content_hash

if TYPE_CHECKING:
    import datasets


_MANY = 200
"""Files of a data set that are not read one by one to find a fault: a folder of single images, say."""


@dataclass(frozen=True)
class Source:
    """A data set on the Hugging Face hub, or a local folder of the same layout: the same source, the same data."""

    path: str
    """The hub's name, or the folder."""
    config_name: str | None
    revision: str | None
    """A commit, branch or tag of the hub's repository; None is its newest."""
    content: str | None
    """Content hash of a local folder or file; None for the hub."""

    @classmethod
    def of(cls, path: str, config_name: str | None, revision: str | None) -> Source:
        """Look where it lies. Raises OSError for local files that cannot be read."""
        local = Path(path).expanduser()
        here = local.exists()
        return cls(str(local) if here else path, config_name, revision, content_hash(local) if here else None)

    def load(self) -> datasets.DatasetDict:
        """All splits.

        Raises ValueError, naming the file at fault where one is, for local files that cannot be read; FileNotFoundError
        for what the hub did not give.
        """
        import datasets

        try:
            with quietly():
                return datasets.load_dataset(
                    self.path, self.config_name, revision=self.revision if self.content is None else None, **self._cache
                )
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            if self.content is None:
                raise FileNotFoundError(
                    f"path={self.path}: no such folder, and the Hugging Face hub did not give a data set of this name "
                    f"({_reason(error)}); give a local folder in the hub's layout, or go online"
                ) from error
            culprit = self._culprit()
            what = f"cannot be read as a data set ({_reason(error)})" if culprit is None else culprit
            raise ValueError(f"path={self.path}: {what}") from error

    @property
    def _cache(self) -> dict[str, str]:
        """The library knows a local file by its name and time: what it made of other content is kept apart by ours."""
        import datasets

        if self.content is None:
            return {}
        return {"cache_dir": str(Path(datasets.config.HF_DATASETS_CACHE) / "vrbench-local" / self.content)}

    def row(self, split: str, number: int) -> str:
        """What to call a row of a split: `row 3 (from 0) of train.csv`; of the split, where no file can be told."""
        here = number
        for file, table in self._files().get(split, ()):
            if isinstance(table, Exception):
                break
            if here < len(table):
                return f"row {here} (from 0) of {file}"
            here -= len(table)
        return f"row {number} (from 0) of the {split} split"

    def _files(self) -> dict[str, Iterator[tuple[str, datasets.Dataset | Exception]]]:
        """For each split the names of its local files and what each holds, or why it cannot be read; read lazily."""
        import datasets

        if self.content is None:
            return {}
        try:
            with quietly():
                builder = datasets.load_dataset_builder(self.path, self.config_name, **self._cache)
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError):
            return {}
        kind = type(builder).__module__.rpartition(".")[2]
        found = builder.config.data_files or {}
        if sum(map(len, found.values())) > _MANY:
            return {}
        return {str(split): ((self._name(file), self._alone(kind, file)) for file in found[split]) for split in found}

    def _alone(self, kind: str, file: str) -> datasets.Dataset | Exception:
        import datasets

        try:
            with quietly():
                return datasets.load_dataset(kind, data_files=file, split="train", **self._cache)
        except Exception as error:  # StopIteration for an empty file, among others
            return error

    def _name(self, file: str) -> str:
        root = Path(self.path).resolve()
        return str(Path(file).relative_to(root)) if Path(file).is_relative_to(root) else Path(file).name

    def _culprit(self) -> str | None:
        """The first local file that cannot be read, or whose columns are not those of the first, and why."""
        first: tuple[str, list[str]] | None = None
        for files in self._files().values():
            for name, table in files:
                if isinstance(table, Exception):
                    return _fault(name, Path(self.path) / name, table)
                first = first or (name, table.column_names)
                if table.column_names != first[1]:
                    has, had = ", ".join(table.column_names), ", ".join(first[1])
                    return f"{name} has the columns {has}, and {first[0]} has {had}"
        return None


def _fault(name: str, file: Path, error: Exception) -> str:
    """What is wrong with a file that the library cannot read."""
    if file.is_file():
        if not file.stat().st_size:
            return f"{name} is empty (0 bytes)"
        if isinstance(error.__cause__ or error, UnicodeDecodeError) and (place := not_utf8(file.read_bytes())):
            return f"{name} is not UTF-8 text ({place})"
    return f"{name} cannot be read ({_reason(error)})"


def _reason(error: BaseException) -> str:
    """Why a data set cannot be read, in one line: what lies at the bottom of the library's errors."""
    reason = error.__cause__ or error
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    return lines[0]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Within the block `datasets` logs no error that it also raises, and shows bars on a terminal only."""
    import datasets

    level = datasets.logging.get_verbosity()
    no_bars = not (sys.stderr.isatty() or datasets.are_progress_bars_disabled())
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if no_bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if no_bars:
            datasets.enable_progress_bars()
