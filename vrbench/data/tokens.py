"""Token streams: a corpus as three int32 arrays, cached by the hash of the text and the tokenizer."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrbench.data.text import SPLITS, Corpus
from vrbench.data.tokenization import Tokenizer
from vrbench.runs.records import write_whole

FORMAT = 1
"""Part of the cache's key: raise it when the same text and tokenizer give other arrays."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenStreams:
    """The tokens of a corpus.

    `ids[split]` is int32 of shape (1 + tokens,): a separator, which is only a context, and then the documents one
    after another, each with its separator. `text_bytes[split]` counts the bytes of text that the tokens spell.
    """

    ids: dict[str, np.ndarray]
    text_bytes: dict[str, int]
    vocab_size: int


def tokenize(corpus: Corpus, tokenizer: Tokenizer) -> TokenStreams:
    """Fit the tokenizer on the training documents alone and encode all three splits.

    The result is kept in the folder `vrbench` of `$XDG_CACHE_HOME` (or `~/.cache`), where the next run with the same
    text and tokenizer finds it. A cache that cannot be read or written costs a warning, not the run.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrbench"
    file = folder / f"tokens-{_content_hash(corpus, tokenizer.key)}.npz"
    streams = _load(file)
    if streams is None:
        streams = _encode(corpus, tokenizer)
        _save(file, streams)
    return streams


def _encode(corpus: Corpus, tokenizer: Tokenizer) -> TokenStreams:
    encoder = tokenizer.fit(corpus.train)
    ids: dict[str, np.ndarray] = {}
    text_bytes: dict[str, int] = {}
    for split in SPLITS:
        parts: list[Sequence[int]] = [[encoder.separator]]
        text_bytes[split] = 0
        for document in getattr(corpus, split):
            encoded = encoder.encode(document)
            parts.append(encoded.ids)
            text_bytes[split] += encoded.text_bytes
        ids[split] = np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
    return TokenStreams(ids, text_bytes, encoder.vocab_size)


def _content_hash(corpus: Corpus, key: str) -> str:
    state = hashlib.blake2b(digest_size=16)
    for part in (str(FORMAT), key, *(item for split in SPLITS for item in (split, *getattr(corpus, split)))):
        encoded = part.encode()
        state.update(len(encoded).to_bytes(8, "big"))
        state.update(encoded)
    return state.hexdigest()


def _load(file: Path) -> TokenStreams | None:
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return TokenStreams(
                ids={split: arrays[split] for split in SPLITS},
                text_bytes={split: int(count) for split, count in zip(SPLITS, arrays["text_bytes"], strict=True)},
                vocab_size=int(arrays["vocab_size"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: unreadable token cache (%s), made anew", file, error)
        return None


def _save(file: Path, streams: TokenStreams) -> None:
    arrays: dict[str, Any] = {
        **streams.ids,
        "text_bytes": np.array([streams.text_bytes[split] for split in SPLITS]),
        "vocab_size": np.array(streams.vocab_size),
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda part: np.savez(part, **arrays))
    except OSError as error:
        log.warning("%s: tokens could not be cached (%s); the next run makes them again", file, error)
