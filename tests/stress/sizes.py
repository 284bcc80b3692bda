"""Every stress test comes in two sizes: `short` is a slow test like others, `full` is what `make chaos` runs."""

from __future__ import annotations

import pytest

SEED = 20261124
"""Of everything that is left to chance."""


def sizes(names: str, *, short: tuple[object, ...], full: tuple[object, ...]) -> pytest.MarkDecorator:
    """Parameters of a test in both sizes."""
    small = pytest.param(*short, id="short", marks=[pytest.mark.slow, pytest.mark.timeout(900)])
    large = pytest.param(*full, id="full", marks=[pytest.mark.stress, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize(names, [small, large])
