"""Text in three splits: the embedded pydoc topics, a hub data set, local files, and prompt-completion pairs.

A split is a series of documents. Splits are disjoint by construction: what has to stay together (a topic and the topics
that quote it, a file and its copies, a prompt and all its answers) goes to one split whole, by a hash of its content
and never by the run's seed, so that every seed and every optimizer meets the same validation text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from vrbench.data.documents import (
    SPLITS,
    Again,
    beginning,
    check_shares,
    deal,
    digest,
    divide,
    shortened,
    topic_families,
)
from vrbench.data.hub import Source
from vrbench.data.plain_text import read, read_all
from vrbench.data.rows import Rows, deal_rows
from vrbench.data.splits import Size, Sizes

THEIR_SPLITS = ("train", "validation", "test")
FLOOR = 20_000
"""Characters of validation that a small `train_size` leaves at least: some 5,000 tokens of English."""


@dataclass(frozen=True)
class Corpus:
    """The texts of the three splits; each can be read more than once, and need not lie in memory."""

    train: Iterable[str]
    val: Iterable[str]
    test: Iterable[str]
    joined: bool = False
    """Whether the texts of a split are one document, and not a document each."""
    key: str | None = None
    """Tells these texts from all others without reading them; None: nothing does but their hash."""


@dataclass(frozen=True)
class Pairs:
    """(prompt, completion) pairs of the three splits."""

    train: list[tuple[str, str]]
    val: list[tuple[str, str]]
    test: list[tuple[str, str]]


def pydoc(
    val_fraction: float,
    test_fraction: float,
    train_size: int | None = None,
    val_size: Size = None,
    test_size: int | None = None,
) -> Corpus:
    """The reference text that ships with CPython (`pydoc_data.topics`): some 79 topics, 65,000 words, no download.

    Topics quote one another at length (17 % of the text repeats paragraphs of another), so topics that share a
    paragraph of 40 characters or more form one family and a family is never split. The text differs a little between
    Python versions, and with it every figure: a run's id counts it. Sizes are in characters (see `_corpus`).

    Raises ValueError for shares that leave a split nothing, and for sizes out of range.
    """
    from pydoc_data.topics import topics

    sizes = Sizes(train_size, val_size, test_size)
    families = [[topics[name] for name in family] for family in topic_families(topics)]
    splits = deal(families, val_fraction, test_fraction)
    if empty := _empty(splits):
        shares = f"val_fraction={val_fraction}, test_fraction={test_fraction}"
        raise ValueError(f"{shares}: no family of topics is small enough for the {empty} split; give larger shares")
    return _corpus(splits, sizes)


def _corpus(splits: dict[str, list[str]], sizes: Sizes) -> Corpus:
    """The documents of each split, down to so many characters (null: all): documents in the order of their hashes, the
    last one up to a line end. With a `train_size` and no `val_size` validation keeps the same share, 20,000 characters
    or more. Raises ValueError for more than there is."""
    there = {split: sum(map(len, documents)) for split, documents in splits.items()}
    kept = sizes.kept(there, FLOOR, "characters")
    train, val, test = (
        splits[split] if kept[split] == there[split] else shortened(splits[split], kept[split]) for split in SPLITS
    )
    return Corpus(train, val, test)


def hub(
    path: str,
    config_name: str | None,
    column: str,
    revision: str | None = None,
    train_size: int | None = None,
    val_size: Size = None,
    test_size: int | None = None,
) -> Corpus:
    """A text data set with splits train, validation and test: a name on the Hugging Face hub or a local folder of the
    same layout; rows of `column` (WikiText: lines with their line ends) are joined to one document a split.

    `config_name` is the configuration's name (`wikitext-2-raw-v1`), `revision` a commit, branch or tag of the hub's
    repository (null: its newest). A local folder that has no subfolder of that name is read as it is. Sizes are in
    characters, from the beginning of a split (see `_corpus`). Raises FileNotFoundError when the data cannot be had,
    ValueError, naming file and row, for files that cannot be read, a wrong layout and sizes out of range.
    """
    sizes = Sizes(train_size, val_size, test_size)
    source = _source(path, config_name, revision)
    rows = _own_splits(source, column)
    if empty := _empty(rows):
        raise ValueError(f"path={path}: the {empty} split is empty: column={column} has no text in it")
    key = ["joined", source.content, *(some.key for some in rows.values()), repr(sizes)]
    splits: dict[str, Iterable[str]] = {**rows}
    if sizes != Sizes(None, None, None):
        there = {split: sum(map(len, some)) for split, some in rows.items()}
        kept = sizes.kept(there, FLOOR, "characters")
        cut = {split: Again(partial(beginning, rows[split], kept[split])) for split in SPLITS}
        splits |= {split: cut[split] for split in SPLITS if kept[split] < there[split]}
    return Corpus(**splits, joined=True, key="/".join(map(str, key)))


def documents(
    path: str,
    config_name: str | None,
    revision: str | None,
    column: str,
    val_fraction: float | None,
    test_fraction: float | None,
    train_size: int | None = None,
    val_size: Size = None,
    test_size: int | None = None,
) -> Corpus:
    """Many documents, one a row of `column`, that need not fit in memory: a name on the Hugging Face hub, or a local
    folder of parquet, JSON lines, CSV or text files (of text each line is a document).

    Documents of the data set's training split go to the three splits by their hashes, copies to one of them; with both
    shares null the data set's own splits train, validation and test are taken. `config_name` and `revision` are as in
    `hub`. Sizes keep so many documents, in the order of their hashes (null: all; with a `train_size` and no `val_size`
    validation keeps the same share, 500 or more). Raises FileNotFoundError when the data cannot be had, ValueError,
    naming file and row, for files that cannot be read, a wrong layout, an empty split and arguments out of range; what
    needs the text itself is refused when it is first read.
    """
    sizes = Sizes(train_size, val_size, test_size)
    source = _source(path, config_name, revision)
    if (val_fraction is None) != (test_fraction is None):
        raise ValueError(f"val_fraction={val_fraction}, test_fraction={test_fraction}: give both shares, or neither")
    if val_fraction is None or test_fraction is None:
        tables = _own_splits(source, column)
        shares = None
    else:
        check_shares(val_fraction, test_fraction)
        tables = {"train": _only_split(source, column)}
        shares = {"val": val_fraction, "test": test_fraction}

    @cache
    def splits() -> dict[str, Rows]:
        whole = shares is None and sizes == Sizes(None, None, None)
        dealt = {split: np.arange(len(rows)) for split, rows in tables.items()} if whole else deal_rows(tables, shares)
        if empty := next((split for split in SPLITS if not len(dealt[split])), None):
            given = f"val_fraction={val_fraction}, test_fraction={test_fraction}"
            raise ValueError(f"path={path}: the {empty} split has no document; give more, or other shares than {given}")
        kept = sizes.kept({split: len(numbers) for split, numbers in dealt.items()}, unit="documents")
        return {
            split: tables.get(split, tables["train"]).rows(numbers[: kept[split]]) for split, numbers in dealt.items()
        }

    key = ["documents", source.content, *(rows.key for rows in tables.values()), repr(shares), repr(sizes)]
    return Corpus(
        Again(lambda: splits()["train"]),
        Again(lambda: splits()["val"]),
        Again(lambda: splits()["test"]),
        key="/".join(map(str, key)),
    )


def _source(path: str, config_name: str | None, revision: str | None) -> Source:
    """A name on the hub, or a local folder: its subfolder of the configuration's name, or all of it."""
    local = Path(path).expanduser()
    if local.is_dir():
        folder = local / config_name if config_name is not None and (local / config_name).is_dir() else local
        return Source.of(str(folder), None, None)
    if path.startswith((".", "/", "~")):
        raise FileNotFoundError(f"path={path}: no such folder; give a folder of parquet files or a hub name")
    return Source.of(path, config_name, revision)


def _own_splits(source: Source, column: str) -> dict[str, Rows]:
    """The data set's own train, validation and test. Raises ValueError where one is missing."""
    loaded = source.load()
    for theirs in THEIR_SPLITS:
        if theirs not in loaded:
            raise ValueError(f"path={source.path}: no split {theirs!r} (it has {', '.join(loaded)})")
    return {ours: Rows(source, loaded[theirs], column) for ours, theirs in zip(SPLITS, THEIR_SPLITS, strict=True)}


def _only_split(source: Source, column: str) -> Rows:
    """The data set's only split, train. Raises ValueError where it has others."""
    loaded = source.load()
    if list(loaded) != ["train"]:
        raise ValueError(
            f"path={source.path}: has the splits {', '.join(loaded)}, and shares are of a single one, train; set "
            "val_fraction and test_fraction to null to take its own train, validation and test"
        )
    return Rows(source, loaded["train"], column)


def files(
    path: str | None,
    val_path: str | None,
    test_path: str | None,
    pattern: str,
    val_fraction: float,
    test_fraction: float,
    train_size: int | None = None,
    val_size: Size = None,
    test_size: int | None = None,
) -> Corpus:
    """Local UTF-8 text files. `path` is a file or a folder that is searched with `pattern` (`**/*.txt`).

    With `val_path` and `test_path` (files or folders too) the splits are what they say. Without them each file goes to
    one split whole, copies once; a single file, and files too few or too large for that, are cut at line ends into
    training, validation and test, in this order. Sizes are in characters (see `_corpus`). Raises FileNotFoundError when
    a path or every match is missing, ValueError when a split is empty, a file not UTF-8 or a size out of range.
    """
    if path is None:
        raise ValueError("path=null: give a text file, or a folder of text files")
    sizes = Sizes(train_size, val_size, test_size)
    documents = read_all(path, pattern, "path")
    if val_path is not None and test_path is not None:
        val, test = read_all(val_path, pattern, "val_path"), read_all(test_path, pattern, "test_path")
        if set(documents) & set(val) | set(documents) & set(test) | set(val) & set(test):
            raise ValueError(f"val_path={val_path}: the same file stands in two of the three splits")
        return _corpus({"train": documents, "val": val, "test": test}, sizes)
    if val_path is not None or test_path is not None:
        raise ValueError("val_path and test_path go together: give both, or neither to have path cut up")
    splits = divide(documents, val_fraction, test_fraction)
    if empty := _empty(splits):
        distinct = set(documents)
        held = "1 file" if len(distinct) == 1 else f"{len(distinct)} files"
        lines = sum(len(document.splitlines()) for document in distinct)
        raise ValueError(
            f"path={path}: the {empty} split is empty, because {held} with {lines} line ends in all cannot be cut in "
            "three at line ends near val_fraction and test_fraction; give more text, or val_path and test_path"
        )
    return _corpus(splits, sizes)


def prompt_completion(
    path: str | None,
    prompt_field: str,
    completion_field: str,
    val_fraction: float,
    test_fraction: float,
    train_size: int | None = None,
    val_size: Size = None,
    test_size: int | None = None,
) -> Pairs:
    """Pairs from JSON lines, one object a line with the two fields: a file that is split by a hash of the prompt (all
    pairs of one prompt go to one split), or a folder with train.jsonl, val.jsonl and test.jsonl.

    Sizes keep so many pairs, in the order of their hashes (null: all; with a `train_size` and no `val_size` validation
    keeps the same share, 500 or more). Raises FileNotFoundError when a file is missing, ValueError for a line that is
    not such an object, an empty completion, a prompt in two splits, an empty split or a size out of range.
    """
    if path is None:
        raise ValueError("path=null: give a JSON-lines file of prompts and completions, or a folder of three")
    sizes = Sizes(train_size, val_size, test_size)
    place = Path(path).expanduser()
    fields = (prompt_field, completion_field)
    if place.is_dir():
        splits = {split: _read_pairs(place / f"{split}.jsonl", fields) for split in SPLITS}
        held_out = {prompt for split in ("val", "test") for prompt, _ in splits[split]}
        in_two = [{prompt for prompt, _ in splits[split]} for split in SPLITS]
        if held_out & in_two[0] or in_two[1] & in_two[2]:
            raise ValueError(f"path={path}: the same prompt stands in two of the three files")
        if empty := _empty(splits):
            raise ValueError(f"path={place / f'{empty}.jsonl'}: the {empty} split is empty; put pairs into this file")
    else:
        check_shares(val_fraction, test_fraction)
        pairs = _read_pairs(place, fields)
        splits = _by_prompt(pairs, val_fraction, test_fraction)
        if empty := _empty(splits):
            raise ValueError(
                f"path={path}: the {empty} split is empty, because {len({prompt for prompt, _ in pairs})} different "
                "prompts cannot fill three splits; give more, or a folder with train.jsonl, val.jsonl and test.jsonl"
            )
    kept = sizes.kept({split: len(pairs) for split, pairs in splits.items()})
    return Pairs(**{split: _some(pairs, kept[split]) for split, pairs in splits.items()})


def _by_prompt(
    pairs: list[tuple[str, str]], val_fraction: float, test_fraction: float
) -> dict[str, list[tuple[str, str]]]:
    """Split by the prompts' hashes. A split that gets no prompt takes the first in their order from the largest."""
    places = {prompt: int(digest(prompt)[:12], 16) / 16**12 for prompt, _ in pairs}
    borders = {"val": val_fraction, "test": val_fraction + test_fraction}
    home = {
        prompt: next((split for split, border in borders.items() if place < border), "train")
        for prompt, place in places.items()
    }
    for split in [split for split in SPLITS if split not in home.values()]:
        largest, count = Counter(home.values()).most_common(1)[0]
        if count > 1:
            home[min((prompt for prompt in home if home[prompt] == largest), key=places.__getitem__)] = split
    return {split: [pair for pair in pairs if home[pair[0]] == split] for split in SPLITS}


def _some(pairs: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """The first `count` pairs in the order of their hashes, as they lie."""
    if count == len(pairs):
        return pairs
    chosen = sorted(range(len(pairs)), key=lambda number: digest(*pairs[number]))[:count]
    return [pairs[number] for number in sorted(chosen)]


def _read_pairs(path: Path, fields: tuple[str, str]) -> list[tuple[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"path={path}: no such file")
    pairs = []
    lines = read(path, "path").split("\n")  # JSON text may hold any other line separator, U+2028 say
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, completion = (row[field] for field in fields)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"path={path}: line {number} is no JSON object with {' and '.join(fields)}") from error
        if not isinstance(prompt, str) or not isinstance(completion, str) or not completion:
            raise ValueError(f"path={path}: line {number}: {' and '.join(fields)} must be text, the latter not empty")
        pairs.append((prompt, completion))
    return pairs


def _empty(splits: Mapping[str, Iterable[object]]) -> str | None:
    """The first split that has nothing in it."""
    return next((split for split, items in splits.items() if not any(items)), None)
