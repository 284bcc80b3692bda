"""Tokenizers: a vocabulary of the training split alone, spelled and counted by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vrbench.data import tokens
from vrbench.data.text import Corpus
from vrbench.data.tokenization import BPE, Char, Tokenizer, Word

TOKENIZERS: list[Callable[[], Tokenizer]] = [lambda: Word(1), Char, lambda: BPE(300)]

NAMES = ["word", "char", "bpe"]


@pytest.mark.parametrize("make", TOKENIZERS, ids=NAMES)
def test_the_vocabulary_is_the_training_splits(make: Callable[[], Tokenizer]) -> None:
    train = ["the cat sat on the mat\n" * 20]
    plain = tokens.tokenize(Corpus(train, ["the cat\n"], ["the mat\n"]), make())
    foreign = tokens.tokenize(Corpus(train, ["zzyzx Ω zzyzx\n" * 200], ["quux ß quux\n" * 200]), make())
    assert foreign.vocab_size == plain.vocab_size
    np.testing.assert_array_equal(foreign.ids["train"], plain.ids["train"])


def test_words_by_hand() -> None:
    encoder = Word(1).fit(["The cat's mat.\n"])
    assert encoder.vocab_size == 6  # <unk>, <eos>, the, cat's, mat, .
    encoded = encoder.encode("  THE dog's\n\nmat.")
    # the, <unk>, <eos>; a blank line gives nothing; mat, ., <eos>
    assert encoded.ids == [2, 0, 1, 4, 5, 1]
    # "the" 3, "mat" 3, "." 1, and white space before THE, before dog's and between the lines; dog's is not counted
    assert encoded.text_bytes == 3 + 3 + 1 + 3


def test_rare_words_and_wikitexts_own_marks() -> None:
    encoder = Word(2).fit(["10 @,@ 000 <unk> <unk> 10 @,@ once"])
    assert encoder.encode("10 @,@ 000 <unk> once\n").ids == [2, 3, 0, 0, 0, 1]
    assert encoder.vocab_size == 4


def test_characters_by_hand() -> None:
    encoder = Char().fit(["aé\n"])
    assert encoder.encode("éxa").ids == [4, 0, 3, 1]
    assert encoder.encode("éxa").text_bytes == 3


def test_bpe_spells_every_byte() -> None:
    document = "naïve  café\n\n\tindent 🙂 <eos>\r\n" * 3 + "no line end"
    encoder = BPE(270).fit(["plain ascii only\n" * 9])
    encoded = encoder.encode(document)
    assert encoded.text_bytes == len(document.encode())
    assert encoded.ids[-1] == encoder.separator
    assert encoder.separator not in encoded.ids[:-1]
    spelled = "".join(encoder.pipeline.id_to_token(number) or "" for number in encoded.ids[:-1])
    from tokenizers.decoders import ByteLevel

    assert ByteLevel().decode([spelled]) == document
    assert encoder.vocab_size == 270
    assert len(encoder.encode("plain ascii only").ids) < 10


def test_bpe_learns_the_same_merges_again() -> None:
    documents = [" ".join(f"{a}{b}" for a in "abcd" for b in "wxyz") * 5]
    first, second = (BPE(290).fit(documents).pipeline.to_str() for _ in range(2))
    assert first == second
