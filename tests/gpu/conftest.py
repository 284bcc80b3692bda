"""The CUDA device of all tests in this folder, which are skipped where there is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""What torch wants of cuBLAS for `use_deterministic_algorithms`, before CUDA is first used."""


@pytest.fixture(scope="session", autouse=True)
def cuda() -> torch.device:
    """The device; skips a test where there is none."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device("cuda", torch.cuda.current_device())
