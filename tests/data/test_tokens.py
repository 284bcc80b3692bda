"""Token streams: what they hold, and their cache."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from vrbench.data import encoding, tokens
from vrbench.data.text import SPLITS, Corpus
from vrbench.data.tokenization import BPE, Char, Encoded, PretrainedEncoder, Word


def test_streams_hold_every_document_after_a_separator() -> None:
    streams = tokens.tokenize(Corpus(["ab", "ba"], ["a"], ["b"]), Char())
    assert streams.ids["train"].tolist() == [1, 2, 3, 1, 3, 2, 1]
    assert streams.ids["val"].tolist() == [1, 2, 1]
    assert streams.text_bytes == {"train": 4, "val": 1, "test": 1}
    assert streams.vocab_size == 4
    assert streams.counts["train"].tolist() == [0, 2, 2, 2]
    assert streams.ids["train"].dtype == np.uint16


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
        np.testing.assert_array_equal(first.counts[split], again.counts[split])
    assert again.text_bytes == first.text_bytes
    assert again.vocab_size == first.vocab_size
    tokens.tokenize(Corpus(["a", "b"], ["a"], ["b"]), Counting())  # the same characters in other documents
    assert Counting.fits == 2


def made(tmp_path: Path) -> Path:
    """The only folder of tokens."""
    (folder,) = [path for path in (tmp_path / "cache/vrbench").iterdir() if path.is_dir()]
    return folder


@pytest.mark.parametrize("file", ["manifest.json", "counts.npy", "train.bin", "test.bin"])
@pytest.mark.parametrize("damage", [b"", b"PK torn", None], ids=["empty", "torn", "gone"])
def test_a_damaged_cache_is_made_anew(
    file: str, damage: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = Corpus(["abab"], ["a"], ["b"])
    Counting.fits = 0
    wanted = tokens.tokenize(corpus, Counting()).ids["train"].tolist()
    path = made(tmp_path) / file
    path.unlink() if damage is None else path.write_bytes(damage)
    assert tokens.tokenize(corpus, Counting()).ids["train"].tolist() == wanted
    assert Counting.fits == 2
    assert "unreadable token cache" in caplog.text
    assert tokens.tokenize(corpus, Counting()).ids["train"].tolist() == wanted
    assert Counting.fits == 2


def test_a_large_vocabulary_takes_wider_ids() -> None:
    characters = "".join(map(chr, [*range(0x100, 0xD800), *range(0xE000, 0x13000)]))
    streams = tokens.tokenize(Corpus([characters], [characters[-2:]], ["\u0100"]), Char())
    assert streams.vocab_size > 1 << 16
    assert streams.ids["train"].dtype == np.uint32
    assert streams.ids["val"].tolist() == [1, streams.vocab_size - 2, streams.vocab_size - 1, 1]


def test_what_a_killed_process_left_is_no_cache(tmp_path: Path) -> None:
    corpus = Corpus(["ab"], ["a"], ["b"])
    tokens.tokenize(corpus, Char())
    folder = made(tmp_path)
    folder.rename(folder.with_suffix(".part"))
    (folder.with_suffix(".part") / "train.bin").write_bytes(b"half")
    assert tokens.tokenize(corpus, Char()).ids["val"].tolist() == [1, 2, 1]
    assert made(tmp_path) == folder


TOKENIZE = """
import sys
from pathlib import Path
from vrbench.data import tokens
from vrbench.data.text import Corpus
from vrbench.data.tokenization import Char

class Counting(Char):
    def fit(self, documents):
        with open(sys.argv[1], "a") as file:
            file.write("fit\\n")
        return super().fit(documents)

print(tokens.tokenize(Corpus(["abc" * 100_000], ["a"], ["b"]), Counting()).ids["train"].sum())
"""


def test_of_several_that_start_at_once_one_tokenizes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TOKENIZE, str(tmp_path / "fits")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=120)[0] for process in started}
    assert said == {f"{(2 + 3 + 4) * 100_000 + 2}\n"}
    assert (tmp_path / "fits").read_text() == "fit\n"


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PART", 400)
    monkeypatch.setattr(tokens, "PART", 400)


DOCUMENTS = ["".join(f"{name} word{number} again\n" for number in range(99)) for name in ("a", " b", *"cdefgh")]


class WithoutParts(Char):
    """A tokenizer whose encoder takes whole documents alone."""

    key = "whole"

    def fit(self, documents: Any) -> Any:
        encoder = super().fit(documents)

        class Whole:
            vocab_size, separator = encoder.vocab_size, encoder.separator

            def encode(self, document: str) -> Encoded:
                return encoder.encode(document)

        return Whole()


@pytest.mark.parametrize(
    "make", [Char, lambda: Word(1), lambda: BPE(280), WithoutParts], ids=["char", "word", "bpe", "whole"]
)
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.usefixtures("short_parts")
def test_parts_and_processes_change_no_token(make: Any, joined: bool) -> None:
    """Shared out to processes or not; a document in pieces, cut anywhere, is the same document."""
    encoder = make().fit(DOCUMENTS)
    whole = ["".join(DOCUMENTS)] if joined else DOCUMENTS
    wanted = [encoder.encode(document) for document in whole]
    text = "".join(DOCUMENTS)
    pieces = [text[begin : begin + 37] for begin in range(0, len(text), 37)] if joined else DOCUMENTS
    found = list(encoding.encoded(pieces, encoder, joined))
    assert len(found) > encoding.FEW or (joined and make is WithoutParts), "else no other process is asked"
    assert np.concatenate([part.ids for part in found]).tolist() == [one for each in wanted for one in each.ids]
    assert sum(part.text_bytes for part in found) == sum(each.text_bytes for each in wanted)
    assert sum(part.characters for part in found) == len(text)
    streams = tokens.tokenize(Corpus(pieces, ["a\n"], ["b\n"], joined=joined), make())
    assert streams.ids["train"][1:].tolist() == [one for each in wanted for one in each.ids]
    np.testing.assert_array_equal(
        streams.counts["train"], np.bincount(streams.ids["train"][1:], minlength=streams.vocab_size)
    )


@pytest.mark.usefixtures("short_parts")
def test_the_parts_of_a_long_text_go_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Parallel:
        def __init__(self, **options: Any) -> None:
            seen.append(options["n_jobs"])

        def __call__(self, calls: Any) -> Any:
            for function, arguments, _ in calls:
                yield function(*arguments)

    monkeypatch.setattr("joblib.Parallel", Parallel)
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    encoder = Char().fit(DOCUMENTS)
    found = list(encoding.encoded(DOCUMENTS * 2, encoder, joined=False))
    assert seen == [3]
    assert sum(len(part.ids) for part in found) == 2 * (sum(map(len, DOCUMENTS)) + len(DOCUMENTS))


def test_a_short_text_asks_for_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for joblib, whose import takes longer than the text."""
    for name in ("_jobs", "_stored"):
        monkeypatch.setattr(encoding, name, lambda *_: pytest.fail("other processes were looked for"))
    assert len(list(encoding.encoded(DOCUMENTS, Char().fit(DOCUMENTS), joined=False))) == 1


@pytest.mark.usefixtures("short_parts")
def test_the_processes_end_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    before = set(psutil.Process().children(recursive=True))
    assert len(list(encoding.encoded(DOCUMENTS * 2, Char().fit(DOCUMENTS), joined=False))) > encoding.FEW
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [process for process in left if "resource_tracker" not in " ".join(process.cmdline())]


def test_a_fast_tokenizer_travels_without_transformers() -> None:
    class Fast:
        eos_token_id = 3

        def __init__(self) -> None:
            self.backend_tokenizer = BPE(280).fit(DOCUMENTS).pipeline

        def __len__(self) -> int:
            return 4

        def __reduce__(self) -> Any:
            raise AssertionError("all of transformers would be imported by each process")

    encoder = pickle.loads(pickle.dumps(PretrainedEncoder(Fast())))
    assert len(encoder.encode("one two\n").ids) > 1


def test_tokens_are_read_from_the_map(tmp_path: Path) -> None:
    streams = tokens.tokenize(Corpus(["ab"], ["a"], ["b"]), Char())
    assert all(isinstance(ids, np.memmap) for ids in streams.ids.values())
    held = sum(path.stat().st_size for path in made(tmp_path).glob("*.bin"))
    assert held == 2 * sum(len(ids) for ids in streams.ids.values())


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tokens, "SILENT_SECONDS", -1.0)
    tokens._make(Path(os.environ["XDG_CACHE_HOME"]), Corpus(["ab"], ["a"], ["b"]), Char())
    assert "vrbench: tokenizing the train split: 0 million characters" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        streams = tokens.tokenize(Corpus(["ab"], ["a"], ["b"]), Char())
    assert streams.vocab_size == 4
    assert streams.ids["train"].tolist() == [1, 2, 3, 1]
    assert "could not be cached" in caplog.text
