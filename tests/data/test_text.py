"""Text corpora: how they are split, what is counted once, what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from vrbench.data import text, tokens
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


def test_families_are_joined_through_a_third() -> None:
    one, two = "x" * 50, "y" * 50
    topics = {"a": one, "b": "short\n\nshort", "c": two, "d": f"{two}\n\n{one}", "e": "short"}
    families = sorted(sorted(family) for family in text.topic_families(topics))
    assert families == [["a", "c", "d"], ["b"], ["e"]]


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
        ({"a_txt": "one line"}, {}, ValueError, "the val split is empty: path=.*too few lines"),
        ({"a_txt": "a\n", "b_txt": "b\n"}, {}, ValueError, "the val split is empty: give more text"),
        (
            {"a_txt": "a\n"},
            {"val_fraction": 0.95},
            ValueError,
            "val_fraction=0.95, test_fraction=0.1: .*positive shares",
        ),
        ({"a_txt": ""}, {}, ValueError, "the train split is empty"),
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
    with pytest.raises(ValueError, match=r"path=.*latin.txt: not UTF-8 text \(byte 3\)"):
        local(tmp_path / "latin.txt")


def test_prompts_are_split_by_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} + {n} = ", "completion": f"{2 * n}{end}"} for n in range(60) for end in ("", "!")]
    file = write(tmp_path, pairs_jsonl="\n".join(map(json.dumps, rows)) + "\n\n") / "pairs.jsonl"
    pairs = text.prompt_completion(str(file), "prompt", "completion", 0.2, 0.2)
    prompts = [{prompt for prompt, _ in getattr(pairs, split)} for split in SPLITS]
    assert sum(map(len, prompts)) == 60
    assert len(set.union(*prompts)) == 60
    assert sum(len(getattr(pairs, split)) for split in SPLITS) == 120
    assert all(5 < len(part) < 50 for part in prompts)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "line 2 is no JSON object with prompt and completion"),
        ('{"prompt": "a"}', "line 2 is no JSON object"),
        ("[1, 2]", "line 2 is no JSON object"),
        ('{"prompt": "a", "completion": 3}', "line 2: prompt and completion must be text"),
        ('{"prompt": "a", "completion": ""}', "line 2: prompt and completion must be text, the latter not empty"),
    ],
)
def test_bad_pairs_are_refused(tmp_path: Path, line: str, says: str) -> None:
    good = '{"prompt": "a", "completion": "b"}'
    file = write(tmp_path, pairs_jsonl=f"{good}\n{line}\n") / "pairs.jsonl"
    with pytest.raises(ValueError, match=says):
        text.prompt_completion(str(file), "prompt", "completion", 0.1, 0.1)
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl: no such file"):
        text.prompt_completion(str(tmp_path), "prompt", "completion", 0.1, 0.1)


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """JSON text may hold U+2028, and files from Windows begin with a mark and end lines with two characters."""
    rows = [json.dumps({"q": f"{n}\u2028?", "a": "b\x85c"}, ensure_ascii=False) for n in range(40)]
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found = text.prompt_completion(str(file), "q", "a", 0.2, 0.2)
    assert len(found.train) + len(found.val) + len(found.test) == 40
    assert {completion for _, completion in found.train} == {"b\x85c"}


def test_three_files_of_pairs_share_no_prompt(tmp_path: Path) -> None:
    line = '{{"q": "{}", "a": "b"}}\n'
    folder = write(tmp_path, train_jsonl=line.format(1), val_jsonl=line.format(2), test_jsonl=line.format(3))
    assert text.prompt_completion(str(folder), "q", "a", 0.1, 0.1).val == [("2", "b")]
    write(tmp_path, test_jsonl=line.format(1))
    with pytest.raises(ValueError, match="same prompt stands in two"):
        text.prompt_completion(str(folder), "q", "a", 0.1, 0.1)


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
    assert text.hub(str(folder), "some-v1", "text") == Corpus(["a \nb \n"], ["c\n"], ["d\n"])
    with pytest.raises(ValueError, match=r"column=words: no such column .*it has text"):
        text.hub(str(folder), "some-v1", "words")
    lacking = parquet(tmp_path / "lacking/v1", train=["a"], test=["b"])
    with pytest.raises(ValueError, match="no split 'validation'"):
        text.hub(str(lacking), "v1", "text")
    blank = parquet(tmp_path / "blank/v1", train=["a"], validation=[""], test=["b"])
    with pytest.raises(ValueError, match="the val split is empty"):
        text.hub(str(blank), "v1", "text")
    with pytest.raises(FileNotFoundError, match=r"path=\./absent: no such folder"):
        text.hub("./absent", None, "text")
    with pytest.raises(FileNotFoundError, match="path=nobody/nothing: cannot be loaded"):
        text.hub("nobody/nothing", None, "text")


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared copy of WikiText-2 is not here")
def test_real_wikitext() -> None:
    streams = tokens.tokenize(text.hub(str(REAL), "wikitext-2-raw-v1", "text"), Word(1))
    assert 200_000 < len(streams.ids["train"]) < 300_000
    unigram = unigram_loss(streams.ids["train"][1:], streams.ids["val"][1:], streams.vocab_size)
    assert 5.5 < unigram < 7.0
