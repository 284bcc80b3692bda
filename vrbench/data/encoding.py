"""Texts to token ids, in parts and by several processes: what is held in memory is a few parts, whatever the whole."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from vrbench.data.documents import in_parts
from vrbench.data.tokenization import Encoder

PART = 1 << 22
"""Characters that a process encodes at a time."""
FEW = 4
"""So many parts are encoded by this process alone, sooner than others could start."""

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """A text, and whether a document ends with it."""

    text: str
    ends: bool


class EncodedPart(NamedTuple):
    """Token ids, the bytes of text that they spell, and the characters that were read."""

    ids: np.ndarray
    text_bytes: int
    characters: int


def id_type(vocab_size: int) -> type[np.unsignedinteger[Any]]:
    """The smaller of uint16 and uint32 that holds every id below `vocab_size`."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def encoded(texts: Iterable[str], encoder: Encoder, joined: bool) -> Iterator[EncodedPart]:
    """The texts' ids in their order, part by part; `joined` says that all texts are one document.

    More than a few parts are shared out to as many processes as there are processor cores for this one.
    """
    whole = not hasattr(encoder, "encode_part")
    if joined:
        parts = _ended(["".join(texts)] if whole else in_parts(texts, PART))
    else:
        parts = chain.from_iterable(_ended([text] if whole else in_parts([text], PART)) for text in texts)
    batches = _batches(parts)
    first = list(islice(batches, FEW + 1))
    few = len(first) <= FEW or (jobs := _jobs()) == 1
    if few or (stored := _stored(encoder)) is None:
        for batch in chain(first, batches):
            yield _encode(encoder, batch)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    parallel = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="2 * n_jobs", batch_size=1)
    try:
        yield from parallel(delayed(_encode_stored)(stored, batch) for batch in chain(first, batches))
    finally:
        get_reusable_executor().shutdown()  # else the processes would stay beside the training for five minutes


def _ended(texts: Iterable[str]) -> Iterator[Part]:
    """The parts of one document; one that is empty has one part."""
    last = ""
    for number, text in enumerate(texts):
        if number:
            yield Part(last, False)
        last = text
    yield Part(last, True)


def _batches(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts that make up about PART characters together."""
    batch: list[Part] = []
    length = 0
    for part in parts:
        batch.append(part)
        length += len(part.text)
        if length >= PART:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def _encode(encoder: Any, batch: list[Part]) -> EncodedPart:
    dtype = id_type(encoder.vocab_size)
    ids: list[np.ndarray] = []
    text_bytes = 0
    for text, ends in batch:
        found = encoder.encode(text) if ends else encoder.encode_part(text)
        ids.append(np.fromiter(found.ids, dtype, len(found.ids)))
        text_bytes += found.text_bytes
    return EncodedPart(np.concatenate(ids), text_bytes, sum(len(text) for text, _ in batch))


def _encode_stored(stored: bytes, batch: list[Part]) -> EncodedPart:
    """In a process of its own, which takes one core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    return _encode(_restored(stored), batch)


@lru_cache(1)
def _restored(stored: bytes) -> Any:
    return pickle.loads(stored)  # from the process that started this one


def _stored(encoder: Encoder) -> bytes | None:
    """The encoder as it travels to other processes; None where it cannot."""
    try:
        return pickle.dumps(encoder)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        log.warning("%s cannot travel to other processes (%s): this one encodes alone", type(encoder).__name__, error)
        return None


def _jobs() -> int:
    import joblib

    return int(joblib.cpu_count())
