"""Locks between processes that the system frees when their holder dies, and whose errors name the file."""

from __future__ import annotations

from typing import Any

from filelock import FileLock, Timeout


class Lock(FileLock):
    """filelock's lock; `acquire` raises Timeout, and OSError with the file's name where the system has no locks."""

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        """Take the lock."""
        try:
            return super().acquire(*arguments, **options)
        except Timeout:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self.lock_file) from error
