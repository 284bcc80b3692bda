"""The contract of a tokenizer: vrbench.data.tokenization says what its methods are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vrbench.checks.contract import check_arguments, require

TRAIN = (
    "the quick brown fox jumps over the lazy dog .\nthe dog sleeps .\n",
    "a fox and a dog meet in the wood , and the fox runs .\n",
)
OTHER = "zebras graze quietly\n"


@dataclass(frozen=True)
class TokenizerPart:
    """A tokenizer as its YAML has it."""

    make: Callable[[], Any]
    target: Callable[..., Any]
    settings: Mapping[str, Any]


def states_every_argument(part: TokenizerPart) -> None:
    """The YAML leaves no default in the dark, and states nothing that the target does not take."""
    check_arguments(part.target, part.settings, ("self",))


def has_a_key(part: TokenizerPart) -> None:
    """A text that is the same for every tokenizer of one configuration: the cache of tokens goes by it."""
    first, second = part.make().key, part.make().key
    require(isinstance(first, str) and first, f"key has to be a text that is not empty, and is {first!r}")
    require(first == second, f"two tokenizers of one YAML have the keys {first!r} and {second!r}")


def ids_lie_in_the_vocabulary(part: TokenizerPart) -> None:
    """Whole numbers from 0 to below `vocab_size`, of texts that were never seen too."""
    encoder = part.make().fit(TRAIN)
    for text in (*TRAIN, OTHER):
        ids = encoder.encode(text).ids
        inside = all(isinstance(one, int) and 0 <= one < encoder.vocab_size for one in ids)
        require(inside, f"ids have to be whole numbers from 0 to below vocab_size={encoder.vocab_size}: {list(ids)}")


def learns_from_training_text_alone(part: TokenizerPart) -> None:
    """Encoding a text changes neither the vocabulary nor the ids of another."""
    encoder = part.make().fit(TRAIN)
    size, ids = encoder.vocab_size, list(encoder.encode(TRAIN[0]).ids)
    encoder.encode(OTHER)
    require(encoder.vocab_size == size, "encoding a new text has changed vocab_size")
    require(list(encoder.encode(TRAIN[0]).ids) == ids, "encoding a new text has changed the ids of another")


def is_the_same_every_time(part: TokenizerPart) -> None:
    """Two of one configuration, fitted on one text, give the same ids."""
    first, second = (part.make().fit(TRAIN) for _ in range(2))
    for text in (*TRAIN, OTHER):
        require(first.encode(text) == second.encode(text), "two tokenizers of one YAML, fitted alike, give other ids")


def ends_documents_with_the_separator(part: TokenizerPart) -> None:
    """`separator` is an id of the vocabulary, the last one of every document."""
    encoder = part.make().fit(TRAIN)
    require(0 <= encoder.separator < encoder.vocab_size, f"separator={encoder.separator}: is outside the vocabulary")
    for text in (*TRAIN, OTHER):
        ids = list(encoder.encode(text).ids)
        require(ids[-1:] == [encoder.separator], f"the last id of a document is not the separator: {ids[-3:]}")


def tells_texts_apart(part: TokenizerPart) -> None:
    """Training words in another order or number have other ids; a `decode`, where there is one, gives the text back."""
    encoder = part.make().fit(TRAIN)
    texts = ["the dog sleeps .\n", "the fox sleeps .\n", "sleeps the dog .\n", "the dog dog sleeps .\n", "the dog .\n"]
    ids = [tuple(encoder.encode(text).ids) for text in texts]
    require(len(set(ids)) == len(texts), "texts that differ in words of the training text have the same ids")
    if hasattr(encoder, "decode"):
        for text, encoded in zip(texts, ids, strict=True):
            found = encoder.decode(list(encoded))
            require(found == text, f"decode gives {found!r} for {text!r}")


def counts_the_bytes_that_it_spells(part: TokenizerPart) -> None:
    """`text_bytes` is above 0, and at most the bytes of the text: bits per byte are by it."""
    encoder = part.make().fit(TRAIN)
    for text in (*TRAIN, OTHER):
        told, bytes_ = encoder.encode(text).text_bytes, len(text.encode())
        require(isinstance(told, int) and 0 < told <= bytes_, f"text_bytes={told} for a text of {bytes_} bytes")


def parts_make_up_the_whole(part: TokenizerPart) -> None:
    """Where there is `encode_part`, a long document's parts have its ids and bytes."""
    encoder = part.make().fit(TRAIN)
    if not hasattr(encoder, "encode_part"):
        return
    begins, ends = "the dog  sleeps .\n\nthe fox .\n", "a dog meets\nzebras .\n"
    parts, whole = (encoder.encode_part(begins), encoder.encode(ends)), encoder.encode(begins + ends)
    ids = [*parts[0].ids, *parts[1].ids]
    require(ids == list(whole.ids), f"encode_part and encode give {ids} for a document whose ids are {whole.ids}")
    told = parts[0].text_bytes + parts[1].text_bytes
    require(told == whole.text_bytes, f"the parts have text_bytes={told}, the whole {whole.text_bytes}")


PROPERTIES = (
    states_every_argument,
    has_a_key,
    ids_lie_in_the_vocabulary,
    learns_from_training_text_alone,
    is_the_same_every_time,
    ends_documents_with_the_separator,
    tells_texts_apart,
    counts_the_bytes_that_it_spells,
    parts_make_up_the_whole,
)
