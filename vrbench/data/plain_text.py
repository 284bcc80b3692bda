"""Text files as strings: UTF-8 without its mark, lines that end with a line feed; faults named by file and place."""

from __future__ import annotations

import logging
import re
from pathlib import Path

log = logging.getLogger(__name__)


def not_utf8(content: bytes) -> str | None:
    """Where bytes are no UTF-8: `line 3, byte 57: 0xe9`, lines counted from 1 and bytes from 0; None where all are."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
        return f"line {line}, byte {error.start}: 0x{content[error.start]:02x}"
    return None


def read(path: Path, argument: str) -> str:
    """The text of a file, with line feeds for the line ends of Windows and old Macs, and without a byte-order mark.

    Raises ValueError, which begins with `argument`, for what is not UTF-8.
    """
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{argument}={path}: is UTF-16 text; save it as UTF-8")
    if fault := not_utf8(content):
        raise ValueError(f"{argument}={path}: not UTF-8 text ({fault}); save it as UTF-8")
    return content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_all(path: str, pattern: str, argument: str) -> list[str]:
    """The text of a file, or of the files of a folder that match `pattern`, in the order of their names.

    Files without text are left out, and a warning names them. Raises FileNotFoundError where nothing is there or
    matches, ValueError where no file has text or one is not UTF-8.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise FileNotFoundError(f"{argument}={path}: no such file or folder")
    files = [place] if place.is_file() else sorted(match for match in place.glob(pattern) if match.is_file())
    if not files:
        raise FileNotFoundError(f"{argument}={path}: no file matches pattern={pattern}")
    texts = [read(file, argument) for file in files]
    if empty := [file for file, text in zip(files, texts, strict=True) if not text.strip()]:
        if len(empty) == len(files):
            raise ValueError(f"{argument}={path}: there is no text in {_named(empty)}; give files with text in them")
        log.warning("%s=%s: left out, having no text in it: %s", argument, path, _named(empty))
    return [text for text in texts if text.strip()]


def _named(files: list[Path]) -> str:
    """`a.txt, b.txt, c.txt and 3 more`."""
    names = ", ".join(file.name for file in files[:3])
    return f"{names} and {len(files) - 3} more" if len(files) > 3 else names
