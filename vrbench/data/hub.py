"""Manners for the `datasets` library: what goes wrong comes as an exception, and bars are for terminals."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


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
