"""Text corpora: how they are split, what is counted once, what is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vrbench.data import plain_text, text, tokens
from vrbench.data.rows import Rows
from vrbench.data.text import SPLITS, Corpus
from vrbench.data.tokenization import Word
from vrbench.metrics.language import unigram_loss

REAL = Path(__file__).parents[2] / "../shared/data/wikitext2-mini"


def test_pydoc_splits_share_no_topic_and_no_paragraph() -> None:
    from pydoc_data.topics import topics

    corpus = text.pydoc(0.1, 0.1)
    assert sorted(corpus.train + corpus.val + corpus.test) == sorted(topics.values())
    paragraphs = {
        split: {part.strip() for document in getattr(corpus, split) for part in document.split("\n\n")}
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not [part for part in paragraphs[one] & paragraphs[other] if len(part) >= 60]
    characters = {split: sum(map(len, getattr(corpus, split))) for split in SPLITS}
    for split in ("val", "test"):
        assert 0.08 < characters[split] / sum(characters.values()) <= 0.1


def write(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


def local(path: str | Path | None, **changes: Any) -> Corpus:
    options: dict[str, Any] = {
        "val_path": None,
        "test_path": None,
        "pattern": "**/*.txt",
        "val_fraction": 0.2,
        "test_fraction": 0.1,
    }
    return text.files(None if path is None else str(path), **(options | changes))


def test_one_file_is_cut_at_line_ends(tmp_path: Path) -> None:
    lines = "".join(f"line {number}\n" for number in range(10))
    corpus = local(write(tmp_path / "one", a_txt=lines) / "a.txt")
    assert corpus.train[0] + corpus.val[0] + corpus.test[0] == lines
    assert [len(getattr(corpus, split)[0].splitlines()) for split in SPLITS] == [7, 2, 1]


def test_files_go_to_one_split_each_and_copies_count_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "many", **{f"f{number}_txt": f"text number {number:02}" for number in range(20)})
    write(folder / "deeper", copy_txt="text number 07", note_md="not matched")
    corpus = local(folder)
    everything = corpus.train + corpus.val + corpus.test
    assert sorted(everything) == [f"text number {number:02}" for number in range(20)]
    assert (len(corpus.val), len(corpus.test)) == (4, 2)


def held(corpus: Corpus) -> dict[str, list[str]]:
    return {split: getattr(corpus, split) for split in SPLITS}


def test_files_too_few_for_three_splits_are_cut_at_line_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"{name}{number}\n" * 100 for number, name in enumerate("abc")]
    folder = write(tmp_path / "three", **{f"f{number}_txt": content for number, content in enumerate(texts)})
    splits = held(local(folder))
    assert [len(part) for part in splits["train"]] == [210, 210, 210]
    assert [len(part) for part in splits["val"]] == [60, 60, 60]
    assert [len(part) for part in splits["test"]] == [30, 30, 30]
    assert sorted(map("".join, zip(*splits.values(), strict=True))) == texts
    assert len(caplog.messages) == 1
    assert "3 files are too few or too large to go to three splits whole: each is cut at line ends" in caplog.text


def test_lines_end_alike_whatever_wrote_them_and_marks_go(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\r\nfour")
    assert plain_text.read(tmp_path / "a.txt", "path") == "one\ntwo\nthree\n\nfour"
    (tmp_path / "a.txt").write_text("one", encoding="utf-16")
    with pytest.raises(ValueError, match=r"^path=.*a\.txt: is UTF-16 text; save it as UTF-8"):
        local(tmp_path / "a.txt")


def test_a_byte_that_is_not_utf8_is_named_by_line_and_place(tmp_path: Path) -> None:
    folder = write(tmp_path / "many", a_txt="fine\n")
    (folder / "b.txt").write_bytes(b"one\r\ntwo\rthree\n four \xff")
    with pytest.raises(ValueError, match=r"^path=.*b\.txt: not UTF-8 text \(line 4, byte 21: 0xff\); save it"):
        local(folder)
    with pytest.raises(ValueError, match=r"^val_path=.*b\.txt: not UTF-8 text"):
        local(folder / "a.txt", val_path=str(folder / "b.txt"), test_path=str(folder / "a.txt"))
    (tmp_path / "pairs.jsonl").write_bytes(b'{"q": "caf\xe9", "a": "b"}')
    with pytest.raises(ValueError, match=r"^path=.*pairs\.jsonl: not UTF-8 text \(line 1, byte 10: 0xe9\)"):
        text.prompt_completion(str(tmp_path / "pairs.jsonl"), "q", "a", 0.1, 0.1)


def test_empty_files_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = {f"f{number}_txt": f"text number {number:02}" for number in range(20)}
    folder = write(tmp_path / "many", **texts, void_txt="", blank_txt="\n \n")
    splits = held(local(folder))
    assert sorted(itertools.chain(*splits.values())) == sorted(texts.values())
    assert ": left out, having no text in it: blank.txt, void.txt" in caplog.text
    with pytest.raises(ValueError, match=r"^val_path=.*void\.txt: there is no text in void\.txt;"):
        local(folder / "f1.txt", val_path=str(folder / "void.txt"), test_path=str(folder / "f2.txt"))


def test_sizes_of_a_corpus(tmp_path: Path) -> None:
    whole, small = held(text.pydoc(0.1, 0.1)), held(text.pydoc(0.1, 0.1, 50_000, None, 3000))
    sizes = {split: sum(map(len, part)) for split, part in whole.items()}
    kept = {split: sum(map(len, part)) for split, part in small.items()}
    assert 49_900 < kept["train"] <= 50_000
    assert 19_900 < kept["val"] <= 20_000, "an eighth of validation would be fewer"
    assert 2900 < kept["test"] <= 3000
    half = sum(map(len, text.pydoc(0.1, 0.1, sizes["train"] // 2).val))
    assert sizes["val"] / 2 - 100 < half <= sizes["val"] / 2 + 1
    assert held(text.pydoc(0.1, 0.1, 50_000, "all"))["val"] == whole["val"]
    assert held(text.pydoc(0.1, 0.1, 50_000, None, 3000)) == small
    lines = "".join(f"line {number}\n" for number in range(100))
    file = write(tmp_path / "one", a_txt=lines) / "a.txt"
    assert local(file, val_size=30, test_size=10).val == ["".join(f"line {number}\n" for number in range(71, 74))]
    assert local(file, val_size=30, test_size=10).train == local(file).train


def test_given_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "given", a_txt="train", b_txt="val", c_txt="test")
    a, b, c = (str(folder / f"{name}.txt") for name in "abc")
    assert local(a, val_path=b, test_path=c) == Corpus(["train"], ["val"], ["test"])
    with pytest.raises(ValueError, match=r"val_path=.*stands in two"):
        local(a, val_path=a, test_path=c)
    with pytest.raises(ValueError, match=r"val_path and test_path go together"):
        local(a, val_path=b)


@pytest.mark.parametrize(
    ("content", "changes", "error", "says"),
    [
        (None, {}, FileNotFoundError, "path=.*no such file or folder"),
        ({"a_md": "x"}, {}, FileNotFoundError, r"path=.*no file matches pattern=\*\*/\*.txt"),
        (
            {"a_txt": "one line"},
            {},
            ValueError,
            "^path=.*: the val split is empty, because 1 file with 1 line",
        ),
        (
            {"a_txt": "a\n", "b_txt": "b\n"},
            {},
            ValueError,
            "^path=.*: the val split is empty, because 2 files with 2 line ends in all .*give more text, or val_path",
        ),
        (
            {"a_txt": "a\n"},
            {"val_fraction": 0.95},
            ValueError,
            "val_fraction=0.95, test_fraction=0.1: .*positive shares",
        ),
        ({"a_txt": ""}, {}, ValueError, r"^path=.*: there is no text in a\.txt;"),
        ({"a_txt": "", "b_txt": " \n"}, {}, ValueError, r"^path=.*: there is no text in a\.txt, b\.txt;"),
        ({"a_txt": "a\n" * 99}, {"val_size": 999}, ValueError, "^val_size=999: only 40 characters are there; use all"),
    ],
)
def test_bad_files_are_refused(
    tmp_path: Path, content: dict[str, str] | None, changes: Any, error: type[Exception], says: str
) -> None:
    place = tmp_path / "absent" if content is None else write(tmp_path / "there", **content)
    with pytest.raises(error, match=says):
        local(place, **changes)


def test_no_path_and_no_utf8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path=null"):
        local(None)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"^path=.*latin.txt: not UTF-8 text \(line 1, byte 3: 0xe9\)"):
        local(tmp_path / "latin.txt")


def parquet(folder: Path, **splits: list[str]) -> Path:
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True)
    for split, rows in splits.items():
        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), folder / f"{split}-00000-of-00001.parquet")
    return folder.parent


def test_a_local_folder_stands_for_the_hub(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "wiki/some-v1", train=["a \n", "", "b \n"], validation=["c\n"], test=["d\n"])
    parquet(tmp_path / "wiki/other-v1", train=["x\n"], validation=["y\n"], test=["z\n"])
    corpus = text.hub(str(folder), "some-v1", "text")
    assert corpus.joined
    for _ in range(2):
        assert ["".join(getattr(corpus, split)) for split in SPLITS] == ["a \nb \n", "c\n", "d\n"]
    with pytest.raises(ValueError, match=r"column=words: no such column .*it has text"):
        text.hub(str(folder), "some-v1", "words")
    lacking = parquet(tmp_path / "lacking/v1", train=["a"], test=["b"])
    with pytest.raises(ValueError, match="no split 'validation'"):
        text.hub(str(lacking), "v1", "text")
    blank = parquet(tmp_path / "blank/v1", train=["a"], validation=[""], test=["b"])
    with pytest.raises(ValueError, match=r"^path=.*: the val split is empty: column=text has no text in it"):
        text.hub(str(blank), "v1", "text")
    with pytest.raises(FileNotFoundError, match=r"path=\./absent: no such folder"):
        text.hub("./absent", None, "text")
    with pytest.raises(FileNotFoundError, match=r"^path=nobody/nothing: no such folder, and the Hugging Face hub"):
        text.hub("nobody/nothing", None, "text")


def rows(folder: Path, validation: bytes, kind: str = "jsonl", good: bytes = b'{"text": "a"}\n{"text": "b"}\n') -> str:
    """A data set of three files, one a split."""
    folder.mkdir(parents=True)
    for split, content in (("train", good), ("validation", validation), ("test", good)):
        (folder / f"{split}.{kind}").write_bytes(content)
    return str(folder)


CSV = b"text,other\na,1\n"


@pytest.mark.parametrize(
    ("kind", "good", "bad", "says"),
    [
        (
            "jsonl",
            b'{"text": "a"}\n',
            b'{"text": "a"}\n{"text": \n',
            "validation.jsonl cannot be read .JSON parse error",
        ),
        ("jsonl", b'{"text": "a"}\n', b"", "validation.jsonl is empty .0 bytes."),
        (
            "jsonl",
            b'{"text": "a"}\n',
            b'{"word": "a"}\n',
            "validation.jsonl has the columns word, and train",
        ),
        ("csv", CSV, CSV + b"a,1,2\n", "validation.csv cannot be read .*line 3"),
        ("csv", CSV, b"text,other\na\xe9,1\n", "validation.csv is not UTF-8 text .line 2, byte 12: 0xe9."),
        ("txt", b"a\n", b"a\nb\xe9\n", "validation.txt is not UTF-8 text .line 2, byte 3: 0xe9."),
        ("parquet", None, b"PAR1 torn", "validation.parquet cannot be read .*[Pp]arquet"),
    ],
    ids=["torn json", "no bytes", "other columns", "csv row", "csv bytes", "text bytes", "torn parquet"],
)
def test_a_local_file_that_cannot_be_read_is_named(
    tmp_path: Path, kind: str, good: bytes | None, bad: bytes, says: str
) -> None:
    if good is None:
        made = parquet(tmp_path / "made/v1", train=["a"]) / "v1/train-00000-of-00001.parquet"
        good = made.read_bytes()
    folder = rows(tmp_path / "set", bad, kind, good)
    with pytest.raises(ValueError, match=f"^path=.*set: {says}") as caught:
        text.hub(folder, None, "text")
    assert "\n" not in str(caught.value)


def test_a_cell_that_is_no_text_is_named_by_file_and_row(tmp_path: Path) -> None:
    folder = rows(tmp_path / "null", b'{"text": "a"}\n{"text": null}\n')
    with pytest.raises(ValueError, match=r"^column=text: row 1 \(from 0\) of validation\.jsonl is missing"):
        list(text.hub(folder, None, "text").val)
    folder = rows(tmp_path / "bytes", b'{"text": "a"}\n{"text": "b"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(ValueError, match=r"^column=text: row 2 \(from 0\) of validation\.jsonl is not UTF-8"):
        list(text.hub(folder, None, "text").val)
    folder = rows(tmp_path / "number", b"text,other\n5,1\n", "csv", b"text,other\n7,1\n")
    with pytest.raises(ValueError, match=r"^column=text: row 0 \(from 0\) of train\.csv is int, not text"):
        text.hub(folder, None, "text")


# ---- many documents -------------------------------------------------------------------------------------------------

TEXTS = [f"document {number}\nhas two lines\n" for number in range(300)]


def many(folder: Path, kind: str, texts: Sequence[str] = TEXTS, split: str = "train") -> Path:
    """A data set of two files, the documents one a row (of a text file: a line)."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    for number, some in enumerate((texts[: len(texts) // 2], texts[len(texts) // 2 :])):
        file = folder / f"{split}-{number}.{kind}"
        table = pyarrow.table({"text": pyarrow.array(some, pyarrow.string())})
        if kind == "parquet":
            pyarrow.parquet.write_table(table, file)
        elif kind == "csv":
            pyarrow.csv.write_csv(table, file)
        elif kind == "jsonl":
            file.write_text("".join(f"{json.dumps({'text': text})}\n" for text in some))
        else:
            file.write_text("".join(f"{text}\n" for text in some))
    return folder


def dealt(folder: Path, **changes: Any) -> dict[str, list[str]]:
    options: dict[str, Any] = {"config_name": None, "revision": None, "column": "text"}
    options |= {"val_fraction": 0.1, "test_fraction": 0.1}
    corpus = text.documents(str(folder), **(options | changes))
    return {split: list(getattr(corpus, split)) for split in SPLITS}


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "txt"])
def test_documents_of_any_file_go_to_three_splits_by_what_they_hold(tmp_path: Path, kind: str) -> None:
    texts = [text.replace("\n", " ") for text in TEXTS] if kind == "txt" else TEXTS
    splits = dealt(many(tmp_path / "set", kind, texts))
    assert sorted(itertools.chain(*splits.values())) == sorted(texts)
    assert all(15 < len(splits[split]) < 50 for split in ("val", "test"))
    other = dealt(many(tmp_path / "other", kind, texts[::-1]))
    assert {split: sorted(some) for split, some in other.items()} == {s: sorted(some) for s, some in splits.items()}
    place = {text: number for number, text in enumerate(texts)}
    assert all([place[text] for text in some] == sorted(place[text] for text in some) for some in splits.values())


def test_copies_of_a_document_go_to_one_split(tmp_path: Path) -> None:
    splits = dealt(many(tmp_path / "set", "parquet", TEXTS * 3))
    assert all(some.count(text) == 3 for some in splits.values() for text in set(some))
    assert sum(map(len, splits.values())) == 3 * len(TEXTS)


def test_sizes_count_documents(tmp_path: Path) -> None:
    folder = many(tmp_path / "set", "parquet")
    whole, some = dealt(folder), dealt(folder, train_size=50, val_size=9, test_size=5)
    assert {split: len(kept) for split, kept in some.items()} == {"train": 50, "val": 9, "test": 5}
    assert all(set(some[split]) < set(whole[split]) for split in SPLITS)
    more = dealt(folder, train_size=60, val_size=9, test_size=5)
    assert set(some["train"]) < set(more["train"])
    with pytest.raises(ValueError, match=r"^train_size=999: only \d+ documents are there; use null"):
        dealt(folder, train_size=999)


def test_a_data_set_with_splits_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for split, texts in (("train", TEXTS), ("validation", ["v\n", "w\n"]), ("test", ["t\n"])):
        many(folder, "jsonl", texts, split)
    assert dealt(folder, val_fraction=None, test_fraction=None) == {
        "train": TEXTS,
        "val": ["v\n", "w\n"],
        "test": ["t\n"],
    }
    with pytest.raises(
        ValueError, match=r"^path=.*: has the splits .*train.*; set\s+val_fraction and test_fraction to null"
    ):
        dealt(folder)
    with pytest.raises(ValueError, match=r"^val_fraction=0\.1, test_fraction=None: give both shares, or neither"):
        dealt(folder, test_fraction=None)
    with pytest.MonkeyPatch.context() as patch:  # whole splits need no hashes
        patch.setattr("vrbench.data.rows._places", lambda rows: pytest.fail("the text was read to be dealt"))
        assert len(dealt(folder, val_fraction=None, test_fraction=None)["train"]) == len(TEXTS)
    with pytest.raises(ValueError, match=r"^path=.*: no split 'validation'"):
        dealt(many(tmp_path / "one", "parquet"), val_fraction=None, test_fraction=None)
    with pytest.raises(ValueError, match=r"^path=.*: the val split has no document; give more, or other shares"):
        dealt(many(tmp_path / "few", "parquet", ["a", "b"]), val_fraction=0.01, test_fraction=0.5)


def test_documents_are_read_when_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that are cached need no look at the text, and other text has other tokens."""
    folder = many(tmp_path / "set", "parquet")
    options = (str(folder), None, None, "text", 0.1, 0.1)
    first = tokens.tokenize(text.documents(*options), Word(1))
    monkeypatch.setattr(Rows, "__iter__", lambda self: pytest.fail("the text was read"))
    again = tokens.tokenize(text.documents(*options), Word(1))
    assert again.ids["train"].tolist() == first.ids["train"].tolist()
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for options_ in ((*options[:4], 0.2, 0.1), (*options, 40)):
        other = tokens.tokenize(text.documents(*options_), Word(1))
        assert len(other.ids["train"]) < len(first.ids["train"])
    many(folder, "parquet", [text.replace("lines", "words") for text in TEXTS])
    other = tokens.tokenize(text.documents(*options), Word(1))
    assert len(other.ids["train"]) != 0
    assert other.text_bytes != first.text_bytes or other.vocab_size != first.vocab_size


def test_a_joined_corpus_is_cut_as_one_text(tmp_path: Path) -> None:
    lines = [f"line {number}\n" for number in range(100)]
    folder = tmp_path / "set"
    for split in ("train", "validation", "test"):
        many(folder, "jsonl", lines, split)
    corpus = text.hub(str(folder), None, "text", None, 105, 50)
    assert "".join(corpus.train) == "".join(lines[:14]), "14 lines of 7 or 8 characters are 102"
    assert "".join(corpus.val) == "".join(lines[:7])
    assert list(corpus.test) == lines
    assert corpus.key != text.hub(str(folder), None, "text").key


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared copy of WikiText-2 is not here")
def test_real_wikitext() -> None:
    streams = tokens.tokenize(text.hub(str(REAL), "wikitext-2-raw-v1", "text"), Word(1))
    assert 200_000 < len(streams.ids["train"]) < 300_000
    unigram = unigram_loss(streams.counts["train"], streams.counts["val"])
    assert 5.5 < unigram < 7.0
