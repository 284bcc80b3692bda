"""Text in three splits: the embedded pydoc topics, a hub data set, local files, and prompt-completion pairs.

A split is a list of documents. Splits are disjoint by construction: what has to stay together (a topic and the topics
that quote it, a file and its copies, a prompt and all its answers) goes to one split whole, by a hash of its content
and never by the run's seed, so that every seed and every optimizer meets the same validation text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vrbench.data.documents import SPLITS, check_shares, deal, digest, divide, shortened, topic_families
from vrbench.data.hub import Source
from vrbench.data.plain_text import read, read_all
from vrbench.data.splits import Size, Sizes

if TYPE_CHECKING:
    import datasets

Item = TypeVar("Item")
FLOOR = 20_000
"""Characters of validation that a small `train_size` leaves at least: some 5,000 tokens of English."""


@dataclass(frozen=True)
class Corpus:
    """Documents of the three splits."""

    train: list[str]
    val: list[str]
    test: list[str]


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
    return Corpus(
        **{
            split: documents if kept[split] == there[split] else shortened(documents, kept[split])
            for split, documents in splits.items()
        }
    )


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
    local = Path(path).expanduser()
    if local.is_dir():
        folder = local / config_name if config_name is not None and (local / config_name).is_dir() else local
        source = Source.of(str(folder), None, None)
    elif path.startswith((".", "/", "~")):
        raise FileNotFoundError(f"path={path}: no such folder; give a folder of parquet files or a hub name")
    else:
        source = Source.of(path, config_name, revision)
    loaded = source.load()
    splits = {}
    for ours, theirs in zip(SPLITS, ("train", "validation", "test"), strict=True):
        if theirs not in loaded:
            raise ValueError(f"path={path}: no split {theirs!r} (it has {', '.join(loaded)})")
        if column not in loaded[theirs].column_names:
            has = ", ".join(loaded[theirs].column_names)
            raise ValueError(f"column={column}: no such column in {path} (it has {has})")
        splits[ours] = ["".join(_texts(source, loaded[theirs], theirs, column))]
    if empty := _empty(splits):
        raise ValueError(f"path={path}: the {empty} split is empty: column={column} has no text in it")
    return _corpus(splits, sizes)


def _texts(source: Source, table: datasets.Dataset, split: str, column: str) -> list[str]:
    """The cells of a column of text; ValueError, naming file and row, where one is no text or not UTF-8."""
    try:
        cells = list(table[column])
    except UnicodeDecodeError as error:
        number = next(number for number in range(len(table)) if not _is_utf8(table, number))
        raise ValueError(f"column={column}: {source.row(split, number)} is not UTF-8 text") from error
    for number, cell in enumerate(cells):
        if not isinstance(cell, str):
            holds = "is missing" if cell is None else f"is {type(cell).__name__}, not text"
            raise ValueError(f"column={column}: {source.row(split, number)} {holds}")
    return cells


def _is_utf8(table: datasets.Dataset, number: int) -> bool:
    try:
        table[number]
    except UnicodeDecodeError:
        return False
    return True


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


def _empty(splits: Mapping[str, Sequence[Item]]) -> str | None:
    """The first split that has nothing in it."""
    return next((split for split, items in splits.items() if not any(items)), None)
