"""Tokenizers: text to token ids, learned from the training split alone.

A tokenizer is a recipe with `key` (all that decides its result, for the cache) and `fit(documents) -> Encoder`. An
encoder turns one document into ids, its end marked by `separator`, and counts the bytes of text that the ids spell:
what bits per byte divide by. Bytes that a tokenizer does not let the model predict (words or characters outside its
vocabulary) are not counted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import tokenizers

UNKNOWN = "<unk>"
WORD = re.compile(r"<unk>|@[-,.]@|\w+(?:['’]\w+)*|[^\w\s]")
"""A word: letters and digits (apostrophes inside), WikiText's <unk> and @-@, or any other single character."""


class Encoded(NamedTuple):
    """Token ids of one document, the separator at the end included, and the bytes of text that they spell."""

    ids: Sequence[int]
    text_bytes: int


class Encoder(Protocol):
    """A fitted tokenizer; ids lie in [0, `vocab_size`)."""

    vocab_size: int
    separator: int
    """The id that ends a document (`word`: a line), and that a split's first token is predicted from."""

    def encode(self, document: str) -> Encoded:
        """Ids of the document."""

    # An encoder may have `encode_part(text) -> Encoded` too: the ids of the beginning of a document that ends with a
    # line end and is followed by a line that begins with no white space. Then long documents are encoded in parts:
    # the parts' ids, and encode()'s of the last part, have to be encode()'s of the whole.


class Tokenizer(Protocol):
    """A recipe for an encoder."""

    key: str

    def fit(self, documents: Iterable[str]) -> Encoder:
        """Learn the vocabulary from the training documents, which can be read more than once.

        Documents that do not fit in memory come in parts: see `Encoder`.
        """


class Word:
    """Lower-cased words, full vocabulary of the training split, `<unk>` for all others and `<eos>` at line ends.

    The paper's protocol up to its word splitter (NLTK's there, one regular expression here). Bytes: every character of
    a known word after lower-casing, and one for each run of white space; capitals and indentation are lost, so its bits
    per byte are low by what those would cost. A word is in the vocabulary when it occurs `min_count` times or more.
    """

    def __init__(self, min_count: int) -> None:
        if min_count < 1:
            raise ValueError(f"min_count={min_count}: must be 1 or more")
        self.min_count = min_count
        self.key = f"word/{WORD.pattern}/{min_count}"

    def fit(self, documents: Iterable[str]) -> WordEncoder:
        """Vocabulary in the order of first appearance; 0 is `<unk>`, 1 is `<eos>`."""
        counts: dict[str, int] = {}
        for document in documents:
            for word in WORD.findall(document.lower()):
                counts[word] = counts.get(word, 0) + 1
        counts.pop(UNKNOWN, None)
        return WordEncoder(word for word, count in counts.items() if count >= self.min_count)


class WordEncoder:
    """See Word."""

    separator = 1

    def __init__(self, words: Iterable[str]) -> None:
        self.ids = {UNKNOWN: 0, "<eos>": self.separator}
        for word in words:
            self.ids.setdefault(word, len(self.ids))
        self.vocab_size = len(self.ids)

    def encode(self, document: str) -> Encoded:
        """Ids of the words, `<eos>` after each line that is not blank."""
        ids: list[int] = []
        known_bytes = 0
        text = document.lower()
        for line in text.splitlines():
            words = WORD.findall(line)
            for word in words:
                ids.append(self.ids.get(word, 0))
                if word in self.ids:
                    known_bytes += len(word.encode())
            if words:
                ids.append(self.separator)
        return Encoded(ids, known_bytes + len(re.findall(r"\s+", text)))

    encode_part = encode


class Char:
    """Characters of the training split, `<unk>` for all others. Bytes: the UTF-8 bytes of the known characters."""

    key = "char"

    def fit(self, documents: Iterable[str]) -> CharEncoder:
        """Vocabulary in code-point order; 0 is `<unk>`, 1 is `<eos>`."""
        characters: set[str] = set()
        for document in documents:
            characters.update(document)
        return CharEncoder(sorted(characters))


class CharEncoder:
    """See Char."""

    separator = 1

    def __init__(self, characters: Iterable[str]) -> None:
        self.ids = {character: number for number, character in enumerate(characters, 2)}
        self.vocab_size = len(self.ids) + 2

    def encode(self, document: str) -> Encoded:
        """One id a character, and `<eos>`."""
        ids, text_bytes = self.encode_part(document)
        return Encoded([*ids, self.separator], text_bytes)

    def encode_part(self, text: str) -> Encoded:
        """One id a character."""
        known = "".join(character for character in text if character in self.ids)
        return Encoded([self.ids.get(character, 0) for character in text], len(known.encode()))


class BPE:
    """Byte-level byte-pair encoding (arXiv 1508.07909, over bytes as in GPT-2), trained with the `tokenizers` library.

    Lossless: every byte can be spelled, so there is no `<unk>` and the bytes counted are those of the raw text. Lines
    are encoded one by one. `vocab_size` includes the 256 bytes and the separator; a small text may fill less of it.
    """

    LINES_AT_ONCE = 10_000

    def __init__(self, vocab_size: int) -> None:
        if vocab_size < 257:
            raise ValueError(f"vocab_size={vocab_size}: must be 257 or more (256 bytes and the separator)")
        self.vocab_size = vocab_size
        self.key = f"bpe/{vocab_size}"

    def fit(self, documents: Iterable[str]) -> BPEEncoder:
        """Learn the merges from the training documents."""
        from tokenizers import Tokenizer as Pipeline
        from tokenizers import models, pre_tokenizers, trainers

        pipeline = Pipeline(models.BPE())
        pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size - 1,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        pipeline.train_from_iterator(_lines(documents), trainer)
        return BPEEncoder(pipeline, self.LINES_AT_ONCE)


class BPEEncoder:
    """See BPE. The separator is no string, so no text can forge it."""

    def __init__(self, pipeline: tokenizers.Tokenizer, lines_at_once: int) -> None:
        self.pipeline = pipeline
        self.lines_at_once = lines_at_once
        self.separator = pipeline.get_vocab_size()
        self.vocab_size = self.separator + 1

    def encode(self, document: str) -> Encoded:
        """Ids of all bytes, and the separator."""
        ids, text_bytes = self.encode_part(document)
        return Encoded([*ids, self.separator], text_bytes)

    def encode_part(self, text: str) -> Encoded:
        """Ids of all bytes."""
        ids: list[int] = []
        lines = _lines([text])
        while some := list(islice(lines, self.lines_at_once)):
            for encoding in self.pipeline.encode_batch_fast(some, add_special_tokens=False):
                ids.extend(encoding.ids)
        return Encoded(ids, len(text.encode()))


class Pretrained:
    """The tokenizer of a transformers model: a folder with its files, or a name on the Hugging Face hub.

    `revision` is a commit, branch or tag of a hub's repository (None: its newest). Raises FileNotFoundError when it
    cannot be had. Bytes: those of the raw text.
    """

    def __init__(self, path: str | None, revision: str | None) -> None:
        if path is None:
            raise ValueError("path=null: give a folder with a tokenizer's files, or a name on the Hugging Face hub")
        if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
            raise FileNotFoundError(f"path={path}: no such folder; give one with a tokenizer's files, or a hub name")
        from transformers import AutoTokenizer

        place = Path(path).expanduser()
        try:
            name = str(place) if place.is_dir() else path
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, revision=revision or "main")
        except (OSError, ValueError, ImportError) as error:
            raise FileNotFoundError(
                f"path={path}: no tokenizer can be loaded from there ({str(error).strip().splitlines()[0]}); "
                f"give a folder with its files, or go online"
            ) from error
        if self._tokenizer.eos_token_id is None:
            raise ValueError(f"path={path}: this tokenizer has no end-of-text token; choose one that has")
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        rules = json.dumps(self._tokenizer.get_vocab(), sort_keys=True) if backend is None else backend.to_str()
        self.key = f"{type(self._tokenizer).__name__}/{hashlib.blake2b(rules.encode()).hexdigest()}"

    def fit(self, documents: Iterable[str]) -> PretrainedEncoder:
        """Nothing is learned here."""
        return PretrainedEncoder(self._tokenizer)


class PretrainedEncoder:
    """See Pretrained. The separator is the tokenizer's end-of-text token."""

    def __init__(self, tokenizer: Any) -> None:
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        """Of transformers' fast tokenizers; with it transformers is not needed, nor imported by other processes."""
        self._tokenizer: Any = tokenizer if self._backend is None else None
        self.separator = int(tokenizer.eos_token_id)
        self.vocab_size = len(tokenizer)

    def encode(self, document: str) -> Encoded:
        """Ids of the text, and the separator."""
        ids, text_bytes = self.encode_part(document)
        return Encoded([*ids, self.separator], text_bytes)

    def encode_part(self, text: str) -> Encoded:
        """Ids of the text. In parts they are those of the whole where the tokenizer starts a new word behind a line
        end that no white space follows, as GPT-2's does."""
        if self._backend is None:
            ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        else:
            (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=False)
            ids = encoding.ids
        return Encoded(ids, len(text.encode()))


def _lines(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        yield from document.splitlines(keepends=True)
