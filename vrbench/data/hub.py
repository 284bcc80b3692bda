"""Data sets through the `datasets` library: where one lies, and manners: errors are raised, bars are for terminals."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vrbench.runs.content import content_hash

if TYPE_CHECKING:
    import datasets


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
        """All splits. Raises what `datasets` raises.

        The library knows a local file by its name and time: what it made of other content is kept apart by ours.
        """
        import datasets

        with quietly():
            if self.content is None:
                return datasets.load_dataset(self.path, self.config_name, revision=self.revision)
            cache = Path(datasets.config.HF_DATASETS_CACHE) / "vrbench-local" / self.content
            return datasets.load_dataset(self.path, self.config_name, cache_dir=str(cache))


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
