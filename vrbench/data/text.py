"""Text in three splits: the embedded pydoc topics, a hub data set, local files, and prompt-completion pairs.

A split is a list of documents. Splits are disjoint by construction: what has to stay together (a topic and the topics
that quote it, a file and its copies, a prompt and all its answers) goes to one split whole, by a hash of its content
and never by the run's seed, so that every seed and every optimizer meets the same validation text.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vrbench.data.hub import Source

if TYPE_CHECKING:
    import datasets

Item = TypeVar("Item")
SPLITS = ("train", "val", "test")


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


def pydoc(val_fraction: float, test_fraction: float) -> Corpus:
    """The reference text that ships with CPython (`pydoc_data.topics`): some 79 topics, 65,000 words, no download.

    Topics quote one another at length (17 % of the text repeats paragraphs of another), so topics that share a
    paragraph of 40 characters or more form one family and a family is never split. The text differs a little between
    Python versions, and with it every figure: compare runs of one version.
    """
    from pydoc_data.topics import topics

    families = [[topics[name] for name in family] for family in topic_families(topics)]
    return Corpus(**split_groups(families, val_fraction, test_fraction))


def topic_families(topics: Mapping[str, str], shared_characters: int = 40) -> list[list[str]]:
    """Names of topics, grouped so that no paragraph of `shared_characters` or more stands in two groups."""
    group_of = {name: name for name in topics}
    first_seen: dict[str, str] = {}
    for name, text in topics.items():
        for paragraph in (" ".join(part.split()) for part in text.split("\n\n")):
            if len(paragraph) < shared_characters:
                continue
            old, new = group_of[name], group_of[first_seen.setdefault(paragraph, name)]
            if old != new:
                group_of = {member: new if group == old else group for member, group in group_of.items()}
    families = defaultdict(list)
    for name, group in group_of.items():
        families[group].append(name)
    return list(families.values())


def split_groups(groups: Iterable[list[str]], val_fraction: float, test_fraction: float) -> dict[str, list[str]]:
    """Deal whole groups of documents to the splits: to validation and test in the order of their hashes until each has
    its share of the characters, the rest to training. A group larger than a share is never held out for it.

    Raises ValueError when the shares are out of range or a split gets nothing.
    """
    _check_shares(val_fraction, test_fraction)
    ordered = sorted((list(group) for group in groups), key=lambda group: _digest(*group))
    total = sum(len(document) for group in ordered for document in group)
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    room = {"val": val_fraction * total, "test": test_fraction * total}
    for group in ordered:
        size = sum(map(len, group))
        split = next((s for s in room if 0 < size <= room[s]), "train")
        splits[split].extend(group)
        if split != "train":
            room[split] -= size
    return _none_empty(splits, "give more text, or other val_fraction and test_fraction")


def hub(path: str, config_name: str | None, column: str, revision: str | None = None) -> Corpus:
    """A text data set with splits train, validation and test: a name on the Hugging Face hub or a local folder of the
    same layout; rows of `column` (WikiText: lines with their line ends) are joined to one document a split.

    `config_name` is the configuration's name (`wikitext-2-raw-v1`), `revision` a commit, branch or tag of the hub's
    repository (null: its newest). A local folder that has no subfolder of
    that name is read as it is. Raises FileNotFoundError when the data cannot be had, ValueError for a wrong layout.
    """
    import datasets

    local = Path(path).expanduser()
    if local.is_dir():
        folder = local / config_name if config_name is not None and (local / config_name).is_dir() else local
        source = Source.of(str(folder), None, None)
    elif path.startswith((".", "/", "~")):
        raise FileNotFoundError(f"path={path}: no such folder; give a folder of parquet files or a hub name")
    else:
        source = Source.of(path, config_name, revision)
    try:
        loaded = source.load()
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"path={path}: cannot be loaded ({reason}); give a local folder of the same layout, or go online"
        ) from error
    splits = {}
    for ours, theirs in zip(SPLITS, ("train", "validation", "test"), strict=True):
        if theirs not in loaded:
            raise ValueError(f"path={path}: no split {theirs!r} (it has {', '.join(loaded)})")
        if column not in loaded[theirs].column_names:
            has = ", ".join(loaded[theirs].column_names)
            raise ValueError(f"column={column}: no such column in {path} (it has {has})")
        splits[ours] = ["".join(_texts(loaded[theirs], theirs, column))]
    return Corpus(**_none_empty(splits, f"path={path} has no text in it"))


def _texts(table: datasets.Dataset, split: str, column: str) -> list[str]:
    """The cells of a column of text; ValueError where one is no text or not UTF-8."""
    try:
        cells = list(table[column])
    except UnicodeDecodeError as error:
        raise ValueError(f"column={column}: the {split} split holds text that is not UTF-8") from error
    for number, cell in enumerate(cells):
        if not isinstance(cell, str):
            raise ValueError(f"column={column}: row {number} of the {split} split is {type(cell).__name__}, not text")
    return cells


def files(
    path: str | None,
    val_path: str | None,
    test_path: str | None,
    pattern: str,
    val_fraction: float,
    test_fraction: float,
) -> Corpus:
    """Local UTF-8 text files. `path` is a file or a folder that is searched with `pattern` (`**/*.txt`).

    With `val_path` and `test_path` (files or folders too) the splits are what they say. Without them a single file is
    cut at line ends into training, validation and test, in this order; of several files each goes to one split whole.
    Raises FileNotFoundError when a path or every match is missing, ValueError when a split is empty or not UTF-8.
    """
    if path is None:
        raise ValueError("path=null: give a text file, or a folder of text files")
    documents = _read_all(path, pattern, "path")
    if val_path is not None and test_path is not None:
        val, test = _read_all(val_path, pattern, "val_path"), _read_all(test_path, pattern, "test_path")
        both = set(documents) & set(val) | set(documents) & set(test) | set(val) & set(test)
        if both - {""}:
            raise ValueError(f"val_path={val_path}: the same file stands in two of the three splits")
        splits = {"train": documents, "val": val, "test": test}
        return Corpus(**_none_empty(splits, "put text into it"))
    if val_path is not None or test_path is not None:
        raise ValueError("val_path and test_path go together: give both, or neither to have path cut up")
    if len(documents) > 1:
        distinct = dict.fromkeys(documents)
        return Corpus(**split_groups([[document] for document in distinct], val_fraction, test_fraction))
    _check_shares(val_fraction, test_fraction)
    size, seen = len(documents[0]), 0
    test_begins = size - round(test_fraction * size)
    val_begins = test_begins - round(val_fraction * size)
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for line in documents[0].splitlines(keepends=True):
        parts["train" if seen < val_begins else "val" if seen < test_begins else "test"].append(line)
        seen += len(line)
    splits = {split: ["".join(part)] for split, part in parts.items()}
    return Corpus(**_none_empty(splits, f"path={path} has too few lines to be cut in three"))


def prompt_completion(
    path: str | None, prompt_field: str, completion_field: str, val_fraction: float, test_fraction: float
) -> Pairs:
    """Pairs from JSON lines, one object a line with the two fields: a file that is split by a hash of the prompt (all
    pairs of one prompt go to one split), or a folder with train.jsonl, val.jsonl and test.jsonl.

    Raises FileNotFoundError when a file is missing, ValueError for a line that is not such an object, an empty
    completion, a prompt in two splits or an empty split.
    """
    if path is None:
        raise ValueError("path=null: give a JSON-lines file of prompts and completions, or a folder of three")
    place = Path(path).expanduser()
    fields = (prompt_field, completion_field)
    if place.is_dir():
        splits = {split: _read_pairs(place / f"{split}.jsonl", fields) for split in SPLITS}
        held_out = {prompt for split in ("val", "test") for prompt, _ in splits[split]}
        in_two = [{prompt for prompt, _ in splits[split]} for split in SPLITS]
        if held_out & in_two[0] or in_two[1] & in_two[2]:
            raise ValueError(f"path={path}: the same prompt stands in two of the three files")
        return Pairs(**_none_empty(splits, "put pairs into it"))
    _check_shares(val_fraction, test_fraction)
    splits = {split: [] for split in SPLITS}
    for prompt, completion in _read_pairs(place, fields):
        place_in_line = int(_digest(prompt)[:12], 16) / 16**12
        borders = {"val": val_fraction, "test": val_fraction + test_fraction}
        split = next((s for s, border in borders.items() if place_in_line < border), "train")
        splits[split].append((prompt, completion))
    return Pairs(**_none_empty(splits, "give more pairs, or other val_fraction and test_fraction"))


def _read_pairs(path: Path, fields: tuple[str, str]) -> list[tuple[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"path={path}: no such file")
    pairs = []
    text = _read(path, "path").removeprefix("\ufeff")  # what Windows programs put before UTF-8
    for number, line in enumerate(text.split("\n"), 1):  # JSON text may hold any other line separator, U+2028 say
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


def _read_all(path: str, pattern: str, argument: str) -> list[str]:
    place = Path(path).expanduser()
    if place.is_file():
        return [_read(place, argument)]
    if not place.is_dir():
        raise FileNotFoundError(f"{argument}={path}: no such file or folder")
    found = sorted(match for match in place.glob(pattern) if match.is_file())
    if not found:
        raise FileNotFoundError(f"{argument}={path}: no file matches pattern={pattern}")
    return [_read(file, argument) for file in found]


def _read(path: Path, argument: str) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}={path}: not UTF-8 text (byte {error.start})") from error


def _check_shares(val_fraction: float, test_fraction: float) -> None:
    if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
        raise ValueError(
            f"val_fraction={val_fraction}, test_fraction={test_fraction}: need positive shares that leave training some"
        )


def _none_empty(splits: dict[str, list[Item]], remedy: str) -> dict[str, list[Item]]:
    for split, items in splits.items():
        if not any(items):
            raise ValueError(f"the {split} split is empty: {remedy}")
    return splits


def _digest(*parts: str) -> str:
    """Hex digest that tells where one part ends and the next begins."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        state.update(len(encoded).to_bytes(8, "big"))
        state.update(encoded)
    return state.hexdigest()
