"""Token streams: a corpus as three files of token ids, made once, mapped into memory by whoever reads them.

They lie in a folder below `$XDG_CACHE_HOME/vrbench` (or `~/.cache/vrbench`): `train.bin`, `val.bin` and `test.bin` hold
the ids as uint16, or uint32 where the vocabulary is larger than that, `counts.npy` how often each token stands in each
split, and `manifest.json` the tokenizer's hash, the type and the counts. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from vrbench.data.documents import Again, digest, in_parts
from vrbench.data.encoding import PART, EncodedPart, encoded, id_type
from vrbench.data.text import SPLITS, Corpus
from vrbench.data.tokenization import Tokenizer
from vrbench.runs.content import cache_folder
from vrbench.runs.locks import Lock
from vrbench.runs.records import fsync_folder, write_json

FORMAT = 2
"""Part of the cache's key: raise it when the same text and tokenizer give other files."""
SILENT_SECONDS = 20.0
"""So long tokenizing says nothing; then a line as often."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenStreams:
    """The tokens of a corpus.

    `ids[split]` is uint16 or uint32 of shape (1 + tokens,), mapped from a file: a separator, which is only a context,
    and then the documents one after another, each with its separator. `text_bytes[split]` counts the bytes of text that
    the tokens spell, `counts[split]` is int64 (vocab_size,): how often each token stands there, the first separator
    not counted.
    """

    ids: dict[str, np.ndarray]
    text_bytes: dict[str, int]
    counts: dict[str, np.ndarray]
    vocab_size: int


def tokenize(corpus: Corpus, tokenizer: Tokenizer) -> TokenStreams:
    """Fit the tokenizer on the training documents alone and encode all three splits.

    The next run with the same text and tokenizer finds the result; of several that start at once one makes it and the
    others wait. A cache that cannot be read or written costs a warning, not the run.
    """
    found = digest(str(FORMAT), tokenizer.key, *_texts(corpus))
    folder = cache_folder() / f"tokens-{found}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder.with_suffix(".lock")):
            if (streams := _load(folder)) is None:
                _make(folder, corpus, tokenizer)
                streams = _load(folder)
    except OSError as error:
        log.warning("%s: tokens could not be cached (%s); the next run makes them again", folder, error)
        with tempfile.TemporaryDirectory() as short_lived:  # what is mapped stays until the process ends
            _make(Path(short_lived) / "tokens", corpus, tokenizer)
            streams = _load(Path(short_lived) / "tokens")
    if streams is None:
        raise OSError(f"{folder}: token files that were just written cannot be read")
    return streams


def _one_at_a_time(path: Path) -> AbstractContextManager[object]:
    """Holds the lock; who has to wait for it says so."""
    lock = Lock(path)
    try:
        held: AbstractContextManager[object] = lock.acquire(timeout=SILENT_SECONDS)
    except Timeout:
        print("vrbench: waiting for another process, which tokenizes the same text", file=sys.stderr)
        held = lock.acquire()
    return held


def _make(folder: Path, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Write the folder of a corpus's tokens. Raises OSError where that cannot be done."""
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir()
    encoder = tokenizer.fit(Again(partial(in_parts, corpus.train, PART)) if corpus.joined else corpus.train)
    dtype = id_type(encoder.vocab_size)
    splits: dict[str, dict[str, Any]] = {}
    counts = np.zeros((len(SPLITS), encoder.vocab_size), np.int64)
    for split, count in zip(SPLITS, counts, strict=True):
        text_bytes = 0
        with open(unfinished / f"{split}.bin", "wb") as file:
            file.write(np.asarray([encoder.separator], dtype).tobytes())
            for part in _told(split, encoded(getattr(corpus, split), encoder, corpus.joined)):
                file.write(part.ids.tobytes())
                count += np.bincount(part.ids, minlength=encoder.vocab_size)
                text_bytes += part.text_bytes
            file.flush()
            os.fsync(file.fileno())
        splits[split] = {"tokens": int(count.sum()), "text_bytes": text_bytes}
    np.save(unfinished / "counts.npy", counts)
    made = {"format": FORMAT, "tokenizer": digest(tokenizer.key), "dtype": np.dtype(dtype).name}
    write_json(unfinished / "manifest.json", {**made, "vocab_size": encoder.vocab_size, "splits": splits})
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
    fsync_folder(folder.parent)


def _load(folder: Path) -> TokenStreams | None:
    """What is in the folder; None where there is none, or (with a warning) where it is damaged."""
    if not folder.exists():
        return None
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        splits, dtype = manifest["splits"], np.dtype(manifest["dtype"])
        counts = np.load(folder / "counts.npy", allow_pickle=False)
        if counts.shape != (len(SPLITS), manifest["vocab_size"]):
            raise ValueError("counts.npy is of another vocabulary")
        ids: dict[str, np.ndarray] = {}
        for split, count in zip(SPLITS, counts, strict=True):
            file = folder / f"{split}.bin"
            tokens = splits[split]["tokens"]
            if tokens != count.sum() or file.stat().st_size != (1 + tokens) * dtype.itemsize:
                raise ValueError(f"{file.name} has not the {tokens} tokens that it should have")
            ids[split] = np.memmap(file, dtype, mode="c")  # private pages: torch warns of what cannot be written to
        return TokenStreams(
            ids=ids,
            text_bytes={split: splits[split]["text_bytes"] for split in SPLITS},
            counts=dict(zip(SPLITS, counts, strict=True)),
            vocab_size=manifest["vocab_size"],
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        log.warning("%s: unreadable token cache (%s), made anew", folder, error)
        return None


def _told(split: str, parts: Iterable[EncodedPart]) -> Iterable[EncodedPart]:
    """The parts as they come; where they take long, lines on stderr say how far they are."""
    began = told = time.monotonic()
    characters = 0
    for part in parts:
        characters += part.characters
        if (now := time.monotonic()) - told > SILENT_SECONDS:
            told = now
            done = f"{characters / 1e6:.0f} million characters, {characters / 1e6 / (now - began):.1f} a second"
            print(f"vrbench: tokenizing the {split} split: {done}", file=sys.stderr)
        yield part


def _texts(corpus: Corpus) -> Iterable[str]:
    """What tells a corpus from others: its key, or else all that it holds."""
    if corpus.key is not None:
        yield corpus.key
        return
    for split in SPLITS:
        yield split
        yield from getattr(corpus, split)
