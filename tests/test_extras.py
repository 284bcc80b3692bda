"""What brings a missing library is what pyproject.toml says, in words that work in a checkout and from a wheel."""

from __future__ import annotations

import itertools
from importlib.metadata import requires
from pathlib import Path

import pytest
from conftest import ROOT

from vrbench import extras
from vrbench.extras import EXTRAS, missing, needs


def chained(*errors: Exception) -> Exception:
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


@pytest.mark.parametrize("library", EXTRAS)
def test_the_extra_is_what_pyproject_says(library: str) -> None:
    declared = [line.replace('"', "'") for line in requires("vrbench") or []]
    assert any(line.startswith(library) and line.endswith(f"extra == '{EXTRAS[library]}'") for line in declared)


def test_the_words_work_where_the_user_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert needs("optuna") == "needs optuna: pip install -e '.[search]'"
    monkeypatch.chdir(tmp_path)
    assert needs("optuna") == f"needs optuna: pip install -e '{ROOT}[search]'"
    (tmp_path / "conf").mkdir()  # as a wheel has it, inside the package
    monkeypatch.setattr(extras, "_PACKAGE", tmp_path)
    assert needs("optuna") == "needs optuna: pip install 'vrbench[search]'"


def test_only_a_missing_library_of_an_extra_is_one() -> None:
    absent = ModuleNotFoundError("No module named 'pytorch_optimizer.x'", name="pytorch_optimizer.x")
    assert missing(absent) == missing(chained(ValueError("v"), ImportError("i"), absent)) == needs("pytorch-optimizer")
    too_old = ImportError("cannot import name 'Lion'", name="pytorch_optimizer")
    for other in (ValueError("v"), ModuleNotFoundError("m", name="trch"), ModuleNotFoundError("m"), too_old):
        assert missing(chained(ValueError("x"), other)) is None
    looped = ValueError("a")
    looped.__cause__ = chained(ValueError("b"), looped)
    assert missing(looped) is None
