"""What stdout and stderr can take: words for signs that they cannot encode, and a quiet end where the reader leaves."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

WORDS = {
    "↑": "(higher is better)", "↓": "(lower is better)", "→": "->", "±": "+-", "−": "-", "–": "-", "—": "-", "×": "x",
    "÷": "/", "·": "*", "†": "#", "…": "...", "≥": ">=", "≤": "<=", "≠": "!=", "²": "^2", "½": "1/2", "’": "'",
    "√": "sqrt", "Δ": "Delta", "α": "alpha", "β": "beta", "γ": "gamma", "θ": "theta", "λ": "lambda", "π": "pi",
    "ρ": "rho", "τ": "tau",
}  # fmt: skip
"""ASCII for the signs that vrbench writes itself."""
HANDLER = "vrbench.words"
"""Name of the codec error handler that writes them."""
CLOSED = 128 + 13
"""Exit code of a command whose reader has gone: a shell's for one that SIGPIPE ended."""


def _worded(error: UnicodeError) -> tuple[bytes, int]:
    """What is written in place of characters that the encoding lacks.

    A sign becomes its words, an undecodable byte of a file name that byte. Anything else becomes its escape (`\\xe9`),
    or, in Python's UTF-8 mode, its UTF-8 bytes: there the name of a file has to come out as it is.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    other = ("utf-8", "surrogateescape") if sys.flags.utf8_mode else ("ascii", "backslashreplace")
    out = bytearray()
    for char in error.object[error.start : error.end]:
        if char in WORDS:
            out += WORDS[char].encode("ascii")
        elif "\udc80" <= char <= "\udcff":
            out.append(ord(char) - 0xDC00)
        else:
            out += char.encode(*other)
    return bytes(out), error.end


def encoding_of(stream: IO[str]) -> str:
    """The stream's encoding; ASCII under `LC_ALL=C`, where Python speaks UTF-8 unless it is told by name what to do."""
    told = {"PYTHONIOENCODING", "PYTHONUTF8"} & os.environ.keys() or "utf8" in sys._xoptions
    if os.environ.get("LC_ALL") in ("C", "POSIX") and not told:
        return "ascii"
    return getattr(stream, "encoding", None) or "utf-8"


def worded(text: str, stream: IO[str]) -> str:
    """The text as the stream will show it: to be asked before lines are laid out, for words are wider than signs."""
    codecs.register_error(HANDLER, _worded)
    encoding = encoding_of(stream)
    return text.encode(encoding, HANDLER).decode(encoding, "surrogateescape")


@contextlib.contextmanager
def output() -> Iterator[None]:
    """Within the block stdout and stderr write words for what they cannot encode, and never raise for it.

    A reader of stdout that has enough (`| head -1`) ends the process without a line, with exit code 141; stdout that
    cannot be written (a full disk) ends it with one line and exit code 1. Decorates the `main` of a command.
    """
    codecs.register_error(HANDLER, _worded)
    before = [(stream, stream.encoding, stream.errors) for stream in (sys.stdout, sys.stderr) if _can_change(stream)]
    for stream, _, _ in before:
        stream.reconfigure(encoding=encoding_of(stream), errors=HANDLER)  # type: ignore[union-attr]
    ended: BaseException | None = None
    stdout = sys.stdout  # click puts another in its place where a pipe breaks
    try:
        yield
    except BaseException as error:  # raised again below
        ended = error
    failure = ended if isinstance(ended, BrokenPipeError) else _unwritten(stdout)
    if failure is not None:
        _write_nowhere(stdout)
    for stream, encoding, errors in before:
        stream.reconfigure(encoding=encoding, errors=errors)  # type: ignore[union-attr]
    if isinstance(failure, BrokenPipeError):
        sys.exit(CLOSED)
    if ended is not None and not (failure and isinstance(ended, SystemExit) and not ended.code):
        raise ended
    if failure is not None:
        print(f"vrbench: stdout: {failure.strerror}", file=sys.stderr)
        sys.exit(1)


def _can_change(stream: IO[str] | None) -> bool:
    return hasattr(stream, "reconfigure")


def _unwritten(stdout: IO[str] | None) -> OSError | None:
    """What hinders stdout from being written to its end."""
    try:
        if stdout is not None:
            stdout.flush()
    except OSError as error:
        return error
    return None


def _write_nowhere(stdout: IO[str] | None) -> None:
    """What is still to be written to stdout goes nowhere: Python would try once more on its way out."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())  # type: ignore[union-attr]
