"""A study's records as one small file, to be committed: every table can be made from it, and the study can go on.

It has all runs that are over, with their rows of validation, test and probes and some of the others, the searches and
what was looked at; no checkpoint, no picture. The same records give the same bytes.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vrbench.runs.records import is_over, write_whole

FILE = "records.tar.xz"
RUN_FILES = ("config.yaml", "manifest.json", "summary.json")
SEARCH_FILES = ("search/*/*.json", "search/*/journal.log", "best/experiment/*.yaml")
STUDY_FILES = ("plan.json", "looks.jsonl", "*/looks.jsonl", *SEARCH_FILES)
TRIALS = "tune"
"""The folder of a search's trials, of which the last row is kept: reports read their trials.json."""
KEPT = ("val/", "test/", "eos/")
RESULTS = b"results/runs"
ROWS, LEAST = 2000, 20
"""Rows of a study, and at least of each run, that have nothing else than the training batch's numbers."""


def pack(study: Path, file: Path) -> int:
    """Write the records of a study to a file, and return how many runs it has. Raises CannotWrite, OSError.

    Runs that are not over are left out: they have to be trained again where only this file is left. The folder of the
    study, where a record has its full path, becomes the default one: it says nothing but whose machine it was.
    """
    here = str(study.resolve().parent).encode()
    folders = sorted(path.parent for path in study.glob("**/manifest.json") if is_over(path.parent))
    content = {}
    for path in sorted({path for pattern in STUDY_FILES for path in study.glob(pattern)}):
        content[path.relative_to(study).as_posix()] = path.read_bytes()
    for folder in folders:
        for name in RUN_FILES:
            content[(folder / name).relative_to(study).as_posix()] = (folder / name).read_bytes()
        metrics = folder / "metrics.jsonl"
        lines = metrics.read_bytes().splitlines(keepends=True)
        kept = lines[-1:] if folder.parent.name == TRIALS else _thinned(lines, max(LEAST, ROWS // len(folders)))
        content[metrics.relative_to(study).as_posix()] = b"".join(kept)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted((name, data.replace(here, RESULTS)) for name, data in content.items()):
            member = tarfile.TarInfo(name)  # no time, no owner
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    packed = lzma.compress(stream.getvalue(), preset=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, lambda out: out.write(packed))
    return len(folders)


def _thinned(lines: Sequence[bytes], rows: int) -> Iterator[bytes]:
    """The lines of a metrics.jsonl that are kept, as they are; the last always."""
    plain = [number for number, line in enumerate(lines) if not any(key.startswith(KEPT) for key in json.loads(line))]
    step = -(-len(plain) // rows) or 1
    dropped = set(plain) - set(plain[::step]) - {len(lines) - 1}
    return (line for number, line in enumerate(lines) if number not in dropped)


def unpack(file: Path, study: Path) -> None:
    """Lay a file's records out as the study's folder; what is there already stays as it is.

    Raises OSError; ValueError for a file that is none of ours, or that would write outside the folder.
    """
    try:
        with tarfile.open(file, mode="r:xz") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.is_absolute() or ".." in name.parts:
                    raise ValueError(f"{file}: holds {member.name}, which is no record")
                content = tar.extractfile(member)
                path = study / name
                if content is not None and not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{file}: is no file of records ({error})") from error
