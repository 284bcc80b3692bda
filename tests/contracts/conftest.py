"""The kit of this session: made-up data, and caches of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.made_up import Supplies

from vrbench.app.check import Kit


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """Every part of conf/, with made-up data where it needs a path; what is cached is cached in a temporary folder."""
    import datasets

    folder: Path = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        yield Kit(supply=Supplies(folder / "data"))
