"""Documents: dealt whole, cut at line ends, shortened, all by what they hold."""

from __future__ import annotations

import itertools

import pytest

from vrbench.data.documents import SPLITS, beginning, cut_in_three, divide, in_parts, shortened, topic_families


def test_families_are_joined_through_a_third() -> None:
    one, two = "x" * 50, "y" * 50
    topics = {"a": one, "b": "short\n\nshort", "c": two, "d": f"{two}\n\n{one}", "e": "short"}
    families = sorted(sorted(family) for family in topic_families(topics))
    assert families == [["a", "c", "d"], ["b"], ["e"]]


def test_documents_stay_whole_where_some_come_near_the_shares(caplog: pytest.LogCaptureFixture) -> None:
    """Of nine of one size none fits into a tenth; that a ninth is held out is better than a cut."""
    nine = [f"{number}\n" * 50 for number in range(9)]
    splits = divide(nine, 0.1, 0.1)
    assert {split: len(part) for split, part in splits.items()} == {"train": 7, "val": 1, "test": 1}
    assert sorted(itertools.chain(*splits.values())) == nine
    assert not caplog.messages
    splits = divide([*(f"{name}\n" * 500 for name in "ab"), "c\n" * 60, "d\n" * 80], 0.05, 0.05)
    assert {split: len(part) for split, part in splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert not caplog.messages
    divide([f"{number}\n" * 50 for number in range(4)], 0.1, 0.1)
    assert len(caplog.messages) == 1


def test_a_cut_loses_nothing_and_lies_near_the_shares() -> None:
    document = "".join(f"line {number}\n" for number in range(1000))
    parts = cut_in_three(document, 0.2, 0.1)
    assert "".join(parts[split] for split in SPLITS) == document
    assert abs(len(parts["val"]) - 0.2 * len(document)) < 20
    assert abs(len(parts["test"]) - 0.1 * len(document)) < 20
    assert all(part.startswith("line ") and part.endswith("\n") for part in parts.values())


def test_text_is_cut_to_characters_at_line_ends() -> None:
    documents = [f"{name * 9}\n" * 10 for name in "abc"]
    assert shortened(documents, 300) == documents
    for size in (1, 5, 10, 99, 100, 101, 119, 205, 299):
        some = shortened(documents, size)
        kept = sum(map(len, some))
        assert size - 10 < kept <= size
        assert all(any(whole.startswith(part) for whole in documents) for part in some)
        assert size < 10 or all(part.endswith("\n") for part in some)
        assert sum(part not in documents for part in some) <= 1
        assert some == sorted(some)
    assert shortened(documents[::-1], 119) == shortened(documents, 119)[::-1]


def test_the_beginning_of_a_text_in_parts_is_that_of_the_whole() -> None:
    for whole in (
        "".join(f"line {number}\n" for number in range(9)),
        "no line end at all",
        "\n\na",
        "ends in a line\nb",
    ):
        for step in (1, 2, 7, 100):
            parts = [whole[begin : begin + step] for begin in range(0, len(whole), step)]
            for size in range(1, len(whole)):
                assert ["".join(beginning(parts, size))] == shortened([whole], size), (whole, step, size)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_parts_end_at_line_ends_before_no_white_space(step: int) -> None:
    text = "a line\n\n  indented\nb\n" * 9 + "x" * 50 + "\n" + "c\n" * 30
    parts = list(in_parts((text[begin : begin + step] for begin in range(0, len(text), step)), 20))
    assert "".join(parts) == text
    assert len(parts) > 9
    assert all(part.endswith("\n") and not after[0].isspace() for part, after in itertools.pairwise(parts))
    assert max(map(len, parts)) < 20 + 50 + 24
    assert list(in_parts([], 20)) == []
    assert list(in_parts(["", "ab"], 1)) == ["ab"]


def test_a_text_without_line_ends_is_searched_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each piece that comes: that would grow with the square of the pieces."""
    searches = 0

    class Counting:
        def search(self, text: str, begin: int) -> None:
            nonlocal searches
            searches += 1

    monkeypatch.setattr("vrbench.data.documents._CUT", Counting())
    assert "".join(in_parts(("x" * 10 for _ in range(5000)), 10)) == "x" * 50_000
    assert searches <= 14
