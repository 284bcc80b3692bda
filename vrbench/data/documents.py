"""Documents dealt to train, validation and test, whole where there are enough of them; and cut down to a size.

All is decided by the documents' hashes, never by a seed: every seed and every optimizer meets the same validation text.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

SPLITS = ("train", "val", "test")
_CUT = re.compile(r"\n(?=\S)")
_MOST = 2
"""A single document may be held out where it has at most so many times the characters that were asked for."""

log = logging.getLogger(__name__)


def check_shares(val_fraction: float, test_fraction: float) -> None:
    """Raises ValueError for shares that are not positive or leave training nothing."""
    if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
        raise ValueError(
            f"val_fraction={val_fraction}, test_fraction={test_fraction}: need positive shares that leave training some"
        )


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


def deal(groups: Iterable[list[str]], val_fraction: float, test_fraction: float) -> dict[str, list[str]]:
    """Deal whole groups of documents to the splits: to validation and test in the order of their hashes until each has
    its share of the characters, the rest to training. A group larger than a share is never held out for it, so that a
    split may get nothing.

    Raises ValueError when the shares are out of range.
    """
    check_shares(val_fraction, test_fraction)
    ordered = sorted((list(group) for group in groups), key=lambda group: digest(*group))
    total = sum(len(document) for group in ordered for document in group)
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    room = {"val": val_fraction * total, "test": test_fraction * total}
    for group in ordered:
        size = sum(map(len, group))
        split = next((s for s in room if 0 < size <= room[s]), "train")
        splits[split].extend(group)
        if split != "train":
            room[split] -= size
    return splits


def divide(documents: Sequence[str], val_fraction: float, test_fraction: float) -> dict[str, list[str]]:
    """Deal files to the splits whole, copies once. Where one would get nothing, the training file nearest to its share
    is held out for it, unless that has more than twice the share: then each file is cut at line ends, and a warning
    says so. A single file is always cut.

    A split is empty in the end only where the files have too few lines. Raises ValueError for shares out of range.
    """
    distinct = list(dict.fromkeys(documents))
    splits = deal([[document] for document in distinct], val_fraction, test_fraction)
    total = sum(map(len, distinct))
    for split, share in (("val", val_fraction * total), ("test", test_fraction * total)):
        nearest = min(splits["train"], key=lambda document: abs(len(document) - share), default="")
        if not splits[split] and len(splits["train"]) > 1 and len(nearest) <= _MOST * share:
            splits["train"].remove(nearest)
            splits[split].append(nearest)
    if all(splits.values()):
        return splits
    if len(distinct) > 1:
        log.warning(
            "%d files are too few or too large to go to three splits whole: each is cut at line ends, and the splits "
            "share their sources; val_path and test_path keep them apart",
            len(distinct),
        )
    cuts = [cut_in_three(document, val_fraction, test_fraction) for document in distinct]
    return {split: [cut[split] for cut in cuts if cut[split].strip()] for split in SPLITS}


def cut_in_three(document: str, val_fraction: float, test_fraction: float) -> dict[str, str]:
    """The document in three parts, train first and test last, cut at the line ends nearest below the shares."""
    size, seen = len(document), 0
    test_begins = size - round(test_fraction * size)
    val_begins = test_begins - round(val_fraction * size)
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for line in document.splitlines(keepends=True):
        parts["train" if seen < val_begins else "val" if seen < test_begins else "test"].append(line)
        seen += len(line)
    return {split: "".join(part) for split, part in parts.items()}


def shortened(documents: Sequence[str], size: int) -> list[str]:
    """At most `size` ≥ 1 characters: documents in the order of their hashes while they fit, and the beginning of the
    next up to a line end (within its first line where that is longer). Returned in the order given."""
    kept: dict[int, str] = {}
    room = size
    for number in sorted(range(len(documents)), key=lambda number: digest(documents[number])):
        document = documents[number]
        if len(document) > room:
            begun = document[:room]
            document = begun[: begun.rfind("\n") + 1] or ("" if kept else begun)
            room = 0
        else:
            room -= len(document)
        if document:
            kept[number] = document
        if not room:
            break
    return [kept[number] for number in sorted(kept)]


class Again:
    """Texts that are made anew each time they are read: `make()` gives them once."""

    def __init__(self, make: Callable[[], Iterable[str]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[str]:
        return iter(self._make())


def beginning(parts: Iterable[str], size: int) -> Iterator[str]:
    """The first `size` ≥ 1 characters of a text that is longer and comes in parts, up to a line end (within its first
    line where that is longer)."""
    begun, lines = "", False
    for part in parts:
        lines_of_it, line_end, rest = part[:size].rpartition("\n")
        size -= len(part)
        if line_end:
            yield begun + lines_of_it + line_end
            begun, lines = rest, True
        else:
            begun += rest
        if size <= 0:
            break
    if not lines:
        yield begun


def in_parts(texts: Iterable[str], size: int) -> Iterator[str]:
    """One text, which comes in pieces, in parts of about `size` characters or less: each but the last ends with a line
    end, and the next one begins with what is no white space."""
    held: list[str] = []
    length, enough = 0, size
    for text in texts:
        held.append(text)
        length += len(text)
        if length < enough:
            continue
        whole, begins = "".join(held), 0
        while len(whole) - begins >= size and (cut := _CUT.search(whole, begins + size - 1)):
            yield whole[begins : cut.start() + 1]
            begins = cut.start() + 1
        held, length = [whole[begins:]], len(whole) - begins
        enough = size if begins else 2 * length  # a long line is not searched again for each piece
    if length:
        yield "".join(held)


def digest(*parts: str) -> str:
    """Hex digest that tells where one part ends and the next begins."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode()
        state.update(len(encoded).to_bytes(8, "big"))
        state.update(encoded)
    return state.hexdigest()
