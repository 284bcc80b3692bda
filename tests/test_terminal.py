"""What is printed reaches any terminal, locale and pipe: words for signs, names as they are, a quiet end for `head`."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from made_runs import eight

from vrbench import terminal
from vrbench.report.study import Compact

PLACES = {
    "LC_ALL=C": ({"LC_ALL": "C"}, "ascii"),
    "ascii": ({"PYTHONIOENCODING": "ascii"}, "ascii"),
    "cp1252": ({"PYTHONIOENCODING": "cp1252"}, "cp1252"),
    "no UTF-8 mode": ({"LC_ALL": "C", "PYTHONUTF8": "0"}, "ascii"),
}
"""Environments that cannot encode every sign, and what they can decode."""


NAMED = "[b] br[ack]et :bug: [bold"
"""A study whose name is full of what rich takes for markup."""
PRINT = (
    "import sys; from pathlib import Path; from vrbench.report.study import print_study; print_study(Path(sys.argv[1]))"
)


def run(*words: object, place: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess[Any]:
    """`python -m vrbench …` with the environment's own encoding."""
    command = [sys.executable, "-m", "vrbench", *map(str, words)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "PYTHONIO", "PYTHONU"))}
    own: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, cwd=ROOT, env=kept | (place or {}), **own)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grün")
    for optimizer, value in (("adamw", 0.8), ("vradam", 0.9)):
        eight(root, value, optimizer, study=NAMED)
    return root


@pytest.mark.parametrize("name", PLACES)
def test_a_table_is_shown_wherever_it_is_printed(name: str, study: Path) -> None:
    place, encoding = PLACES[name]
    shown = run("report", "table", study, "--baseline", "adamw", place=place)
    assert (shown.returncode, shown.stderr) == (0, b"")
    text = shown.stdout.decode(encoding)
    assert "accuracy (higher is better)" in text
    assert ("inside ± that" if encoding == "cp1252" else "inside +- that") in text
    command = [sys.executable, "-c", PRINT, study / NAMED]
    after = subprocess.run(command, cwd=ROOT, env=os.environ | place, capture_output=True)
    assert (after.returncode, after.stderr) == (0, b"")
    said = after.stdout.decode("utf-8" if "LC_ALL" in place else encoding)
    assert f"/{NAMED}\n" in said
    better = "accuracy (higher is better)"
    assert f"{better} 0.8035 {'±' if encoding == 'cp1252' else '+-'} 0.0024" in said


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("columns", [160, 90, 50])
def test_a_terminal_gets_a_drawn_table_with_every_name_as_it_is(columns: int, encoding: str, study: Path) -> None:
    table = in_terminal([sys.executable, "-m", "vrbench", "report", "table", str(study)], columns, encoding)
    after = in_terminal([sys.executable, "-c", PRINT, str(study / NAMED)], columns, encoding)
    assert f"study {NAMED}" in after
    assert f"files: {study / NAMED}" in after or encoding == "ascii"
    assert "|---|" not in table + after
    for shown in (table, after):
        assert max(len(line) for line in shown.splitlines() if "0.8035" in line or line[0:1] in "+┏") <= columns
        assert ("accuracy ↑" if encoding == "utf-8" else "accuracy (higher is better)") in " ".join(shown.split())
        fits = columns == 160 or (columns == 90 and shown is after)  # which leaves out what need not be repeated
        assert ("┃" in shown) == (fits and encoding == "utf-8")


def in_terminal(command: list[str], columns: int, encoding: str) -> str:
    """What a command shows on a terminal of so many columns."""
    pty, termios, fcntl = (pytest.importorskip(name) for name in ("pty", "termios", "fcntl"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm", "PYTHONIOENCODING": encoding, "COLUMNS": str(columns)}
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += (part := os.read(ours, 4096))
            except OSError:  # how a terminal says that its other side is closed
                break
            if not part:
                break
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode(encoding)).replace("\r\n", "\n")


def test_a_table_that_is_a_little_too_wide_loses_its_lines_first() -> None:
    """Then, where even that does not do, its rows become blocks."""
    code = "from vrbench.report import formats, screen; cells = [['a' * 16, '0.1 ± 0.02'], ['b' * 16, '0.2 ± 0.03']];"
    code += "print(screen.text(formats.Table(['name', 'value'], cells, [], [], frozenset({'value'}))))"
    shown = {columns: in_terminal([sys.executable, "-c", code], columns, "utf-8") for columns in (40, 30, 20)}
    assert "┃" in shown[40]
    assert "┃" not in shown[30]
    assert f"{'a' * 16} 0.1 ± 0.02" in shown[30]
    assert re.search(rf"name +{'a' * 10}", shown[20])


def test_what_need_not_be_repeated_is_left_out_on_a_screen() -> None:
    columns = ["task", "model", "optimizer", "settings", "validation (best)", "n", "diverged", "s / run"]
    one, other = (
        ["digits", "mlp", "sgd", "", "0.9", "3", "0", "1.0"],
        ["digits", "mlp", "adamw", "", "0.9", "3", "1", "1.0"],
    )
    same = Compact(columns, [one, one]).without_repetition()
    assert same.columns == ["task", "optimizer", "settings", "validation (best)", "n", "s / run"]
    assert same.rows[0] == ["digits", "sgd", "", "0.9", "3", "1.0"]
    assert "diverged" in Compact(columns, [one, other]).without_repetition().columns
    assert "model" in Compact(columns, [one, ["digits", "cnn", *one[2:]]]).without_repetition().columns


def test_help_is_in_words_too() -> None:
    told = run("report", "compare", "--help", place={"PYTHONIOENCODING": "ascii"})
    assert (told.returncode, told.stderr) == (0, b"")
    assert "KEY[,KEY...]" in told.stdout.decode("ascii")


def test_names_come_out_as_they_are(study: Path) -> None:
    for place in ({}, {"LC_ALL": "C"}):
        found = run("index", study, "optimizer=vradam", "seed=0", place=place)
        (line,) = found.stdout.decode().splitlines()
        assert (Path(line) / "manifest.json").exists()


def test_a_name_that_is_no_text_is_printed_as_its_bytes(tmp_path: Path) -> None:
    from made_runs import make_run

    root = os.fsencode(tmp_path) + b"/caf\xe9"
    make_run(tmp_path / "made", 0.5)
    os.rename(tmp_path / "made", root)
    command = [sys.executable.encode(), b"-m", b"vrbench", b"index", root]
    found = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert (found.returncode, found.stderr) == (0, b"")
    assert os.path.exists(found.stdout.rstrip(b"\n"))


def test_only_what_cannot_be_encoded_is_put_into_words() -> None:
    streams = {encoding: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for encoding in ("ascii", "cp1252", "utf-8")}
    said = {encoding: terminal.worded("l1 ↓ 1 ± 2 … é", stream) for encoding, stream in streams.items()}
    assert said == {
        "ascii": "l1 (lower is better) 1 +- 2 ... \\xe9",
        "cp1252": "l1 (lower is better) 1 ± 2 … é",
        "utf-8": "l1 ↓ 1 ± 2 … é",
    }
    assert all(word.isascii() and not sign.isascii() for sign, word in terminal.WORDS.items())


@pytest.mark.parametrize(
    "words", [["report", "table", "STUDY"], ["report", "--help"], ["index", "STUDY"], ["index", "--help"],
              ["list", "tasks"], ["list", "--help"]], ids=" ".join,
)  # fmt: skip
def test_a_reader_that_leaves_ends_it_quietly(words: list[str], study: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    ended = run(*(word.replace("STUDY", str(study)) for word in words), stdout=write)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (terminal.CLOSED, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
@pytest.mark.parametrize("words", [["index"], ["report", "table"], ["report", "--version"]], ids=" ".join)
def test_a_full_disk_is_one_line(words: list[str], study: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = run(*words, study, stdout=full, text=True)
    assert ended.returncode in (1, 2)
    (line,) = ended.stderr.splitlines()
    assert "No space left on device" in line
