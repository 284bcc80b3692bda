"""Content hashes: no edit goes unseen, and nothing is read twice."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from vrbench.runs import content
from vrbench.runs.content import cache_folder, content_hash


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_FRESH_NS", 0)
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for number in range(40):
        path = folder / f"class{number % 4}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 1000)
    time.sleep(0.02)  # a tick of the file system's clock
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were really read."""
    paths: list[str] = []
    really = content._read
    monkeypatch.setattr(content, "_read", lambda path: paths.append(path) or really(path))
    return paths


def test_what_was_read_is_remembered(data: Path, read: list[str]) -> None:
    first = content_hash(data)
    assert len(read) == 40
    assert content_hash(data) == first
    assert len(read) == 40


def test_an_edit_that_puts_size_and_time_back_is_seen(data: Path, read: list[str]) -> None:
    before = content_hash(data)
    victim = data / "class1" / "5.bin"
    state = victim.stat()
    victim.write_bytes(b"x" * state.st_size)
    os.utime(victim, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (victim.stat().st_size, victim.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert content_hash(data) != before
    assert read[40:] == [str(victim)]


def test_a_file_that_has_just_changed_is_read_again(
    data: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two edits within one tick of the clock leave the same times: young files are not remembered."""
    monkeypatch.setattr(content, "_FRESH_NS", 60_000_000_000)
    content_hash(data)
    content_hash(data)
    assert len(read) == 80


def test_names_and_places_of_bytes_count(tmp_path: Path) -> None:
    folders = []
    for number, files in enumerate([{"a": b"12", "b": b"3"}, {"a": b"1", "b": b"23"}, {"ab": b"123"}, {"a/b": b"123"}]):
        for name, inside in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(inside)
        folders.append(content_hash(tmp_path / str(number)))
    assert len(set(folders)) == 4


def test_links_are_followed_and_never_for_ever(data: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.bin").write_bytes(b"1")
    before = content_hash(data)
    (data / "linked").symlink_to(outside)
    linked = content_hash(data)
    assert linked != before
    (outside / "x.bin").write_bytes(b"2")
    assert content_hash(data) != linked
    (data / "linked").unlink()
    (data / "loop").symlink_to(data)
    (data / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(data / "pipe")
    assert content_hash(data) == before


def test_what_file_managers_leave_is_no_data(data: Path) -> None:
    before = content_hash(data)
    (data / ".DS_Store").write_bytes(b"x")
    (data / ".git").mkdir()
    (data / ".git" / "HEAD").write_bytes(b"x")
    assert content_hash(data) == before
    (data / ".hidden.txt").write_bytes(b"text that a pattern finds")
    assert content_hash(data) != before


@pytest.mark.parametrize("harm", ["damaged", "locked", "no place"])
def test_without_memory_all_is_read_and_right(harm: str, data: Path, cache: Path, read: list[str]) -> None:
    before = content_hash(data)
    file = cache_folder() / "content.sqlite"
    if harm == "damaged":
        file.write_bytes(b"no database at all" * 100)
    elif harm == "locked":
        file.unlink()
        file.mkdir()
    else:
        file.unlink()
        file.parent.rmdir()
        file.parent.write_text("a file in the way")
    assert content_hash(data) == before
    assert len(read) == 80
    if harm == "damaged":  # made anew
        assert sqlite3.connect(file).execute("SELECT count(*) FROM files").fetchone() == (40,)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("x")
    monkeypatch.setattr(content, "_read", lambda path: os.stat(path + "/"))
    with pytest.raises(OSError, match=r"secret\.txt"):
        content_hash(path)


def test_many_files_are_remembered_over_several_queries_and_jobs(tmp_path: Path, read: list[str]) -> None:
    """More than one query of the memory takes, and than one thread is given."""
    for number in range(1300):
        folder = tmp_path / "many" / str(number // 100)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    time.sleep(0.02)  # a tick of the file system's clock
    first = content_hash(tmp_path / "many")
    assert len(read) == 1300
    assert content_hash(tmp_path / "many") == first
    assert len(read) == 1300
    (tmp_path / "many" / "12" / "1299.png").write_bytes(b"1298")
    assert content_hash(tmp_path / "many") != first
    assert len(read) == 1301
