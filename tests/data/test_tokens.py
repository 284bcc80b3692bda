"""Token streams: what they hold, and their cache."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrbench.data import tokens
from vrbench.data.text import SPLITS, Corpus
from vrbench.data.tokenization import Char


def test_streams_hold_every_document_after_a_separator() -> None:
    streams = tokens.tokenize(Corpus(["ab", "ba"], ["a"], ["b"]), Char())
    assert streams.ids["train"].tolist() == [1, 2, 3, 1, 3, 2, 1]
    assert streams.ids["val"].tolist() == [1, 2, 1]
    assert streams.text_bytes == {"train": 4, "val": 1, "test": 1}
    assert streams.vocab_size == 4
    assert streams.ids["train"].dtype == np.int32


class Counting(Char):
    fits = 0

    def fit(self, documents: Any) -> Any:
        type(self).fits += 1
        return super().fit(documents)


def test_streams_are_cached_by_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    corpus = Corpus(["ab"], ["a"], ["b"])
    Counting.fits = 0
    first, again = (tokens.tokenize(corpus, Counting()) for _ in range(2))
    assert Counting.fits == 1
    for split in SPLITS:
        np.testing.assert_array_equal(first.ids[split], again.ids[split])
    assert again.text_bytes == first.text_bytes
    assert again.vocab_size == first.vocab_size
    tokens.tokenize(Corpus(["a", "b"], ["a"], ["b"]), Counting())  # the same characters in other documents
    assert Counting.fits == 2
    for file in (tmp_path / "cache/vrbench").iterdir():
        file.write_bytes(b"PK torn")
    assert tokens.tokenize(corpus, Counting()).ids["train"].tolist() == first.ids["train"].tolist()
    assert Counting.fits == 3
    assert "unreadable token cache" in caplog.text


def test_a_cache_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert tokens.tokenize(Corpus(["ab"], ["a"], ["b"]), Char()).vocab_size == 4
    assert "could not be cached" in caplog.text
