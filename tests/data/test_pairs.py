"""Prompts and completions: split by prompt, cut to sizes, refused by line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from vrbench.data import text
from vrbench.data.text import SPLITS


def write(folder: Path, **contents: str) -> Path:
    """Files of these names, `_` for the point."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


def test_prompts_are_split_by_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} + {n} = ", "completion": f"{2 * n}{end}"} for n in range(60) for end in ("", "!")]
    file = write(tmp_path, pairs_jsonl="\n".join(map(json.dumps, rows)) + "\n\n") / "pairs.jsonl"
    pairs = text.prompt_completion(str(file), "prompt", "completion", 0.2, 0.2)
    prompts = [{prompt for prompt, _ in getattr(pairs, split)} for split in SPLITS]
    assert sum(map(len, prompts)) == 60
    assert len(set.union(*prompts)) == 60
    assert sum(len(getattr(pairs, split)) for split in SPLITS) == 120
    assert all(5 < len(part) < 50 for part in prompts)


def pairs_of(tmp_path: Path, prompts: int, share: float = 0.1, **sizes: Any) -> dict[str, list[tuple[str, str]]]:
    rows = [{"q": f"{n}?", "a": f"{n}{end}"} for n in range(prompts) for end in ("", "!")]
    file = write(tmp_path, pairs_jsonl="\n".join(map(json.dumps, rows))) / "pairs.jsonl"
    found = text.prompt_completion(str(file), "q", "a", share, share, **sizes)
    return {split: getattr(found, split) for split in SPLITS}


def test_three_prompts_fill_three_splits(tmp_path: Path) -> None:
    for count, share in itertools.product((3, 4, 5, 8), (0.1, 0.45)):
        splits = pairs_of(tmp_path, count, share)
        prompts = [{prompt for prompt, _ in part} for part in splits.values()]
        assert all(prompts)
        assert sum(map(len, prompts)) == len(set.union(*prompts)) == count
        assert sum(map(len, splits.values())) == 2 * count
    with pytest.raises(ValueError, match=r"^path=.*: the (val|test|train) split is empty, because 2 different prompts"):
        pairs_of(tmp_path, 2)


def test_pairs_are_cut_to_sizes(tmp_path: Path) -> None:
    whole = pairs_of(tmp_path, 60)
    small = pairs_of(tmp_path, 60, train_size=9, val_size=3, test_size=2)
    assert {split: len(part) for split, part in small.items()} == {"train": 9, "val": 3, "test": 2}
    for split in SPLITS:
        places = [whole[split].index(pair) for pair in small[split]]
        assert places == sorted(set(places))
    assert pairs_of(tmp_path, 60, train_size=9)["val"] == whole["val"]
    with pytest.raises(ValueError, match=r"^test_size=999: only "):
        pairs_of(tmp_path, 60, test_size=999)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json", "line 2 is no JSON object with prompt and completion"),
        ('{"prompt": "a"}', "line 2 is no JSON object"),
        ("[1, 2]", "line 2 is no JSON object"),
        ('{"prompt": "a", "completion": 3}', "line 2: prompt and completion must be text"),
        ('{"prompt": "a", "completion": ""}', "line 2: prompt and completion must be text, the latter not empty"),
    ],
)
def test_bad_pairs_are_refused(tmp_path: Path, line: str, says: str) -> None:
    good = '{"prompt": "a", "completion": "b"}'
    file = write(tmp_path, pairs_jsonl=f"{good}\n{line}\n") / "pairs.jsonl"
    with pytest.raises(ValueError, match=says):
        text.prompt_completion(str(file), "prompt", "completion", 0.1, 0.1)
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl: no such file"):
        text.prompt_completion(str(tmp_path), "prompt", "completion", 0.1, 0.1)


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """JSON text may hold U+2028, and files from Windows begin with a mark and end lines with two characters."""
    rows = [json.dumps({"q": f"{n}\u2028?", "a": "b\x85c"}, ensure_ascii=False) for n in range(40)]
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    found = text.prompt_completion(str(file), "q", "a", 0.2, 0.2)
    assert len(found.train) + len(found.val) + len(found.test) == 40
    assert {completion for _, completion in found.train} == {"b\x85c"}


def test_three_files_of_pairs_share_no_prompt(tmp_path: Path) -> None:
    line = '{{"q": "{}", "a": "b"}}\n'
    folder = write(tmp_path, train_jsonl=line.format(1), val_jsonl=line.format(2), test_jsonl=line.format(3))
    assert text.prompt_completion(str(folder), "q", "a", 0.1, 0.1).val == [("2", "b")]
    write(tmp_path, test_jsonl=line.format(1))
    with pytest.raises(ValueError, match="same prompt stands in two"):
        text.prompt_completion(str(folder), "q", "a", 0.1, 0.1)
    write(tmp_path, test_jsonl="\n")
    with pytest.raises(ValueError, match=r"^path=.*test\.jsonl: the test split is empty; put pairs into this file"):
        text.prompt_completion(str(folder), "q", "a", 0.1, 0.1)
