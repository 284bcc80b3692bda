"""A search's journal on disk, shared by any number of processes: locked, and whole after a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from vrbench.runs.locks import Lock

optuna.logging.set_verbosity(optuna.logging.ERROR)

STUDY = "search"
"""What the one study of a journal is called."""


class _JournalLock(JournalFileOpenLock):
    """A lock that the system frees when its holder dies; its taker cuts off a line that a dead holder left torn."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = Lock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        if self._journal.exists() and self._journal.stat().st_size:
            with open(self._journal, "rb+") as file:
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def open_storage(folder: Path) -> JournalStorage:
    """The journal of a search's folder, which is made where it is missing; errors as in `open_study`."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "journal.log"
    with _named(journal):
        return JournalStorage(JournalFileBackend(str(journal), lock_obj=_JournalLock(journal)))


def open_study(folder: Path, storage: JournalStorage | None = None) -> optuna.Study:
    """The Optuna study of a search's folder, made where it is missing; in its journal, where that is open already.

    Raises ValueError for a journal with a damaged line, OSError where it cannot be written or locked.
    """
    storage = open_storage(folder) if storage is None else storage
    with _named(folder / "journal.log"):
        return optuna.create_study(study_name=STUDY, storage=storage, direction="minimize", load_if_exists=True)


@contextlib.contextmanager
def _named(journal: Path) -> Iterator[None]:
    """What Optuna raises for a damaged line is of any type and names no file."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{journal}: a line is damaged ({error}); remove it, or move the file away to begin anew"
        ) from error
