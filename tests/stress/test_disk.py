"""A disk that is full, read-only or untrue: refusals in one line, nothing half-written, and the same end afterwards."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import children
import pytest
from stress import patches
from stress.short_runs import check_equal, only_run, short
from stress.sizes import SEED, sizes

WORDS = [*short("diffusion_digits"), "trainer.checkpoint_seconds=0"]
"""It writes pictures too."""
PAGES = 16
"""Pages of 4 KiB that are enough for such a run without checkpoints."""
STATES = 600
"""KiB that are enough with them."""
NOT_MOUNTED = "not run: mounting a tmpfs is not allowed here"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 2 MB; None where none may be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@sizes("damages, fills", short=(4, 4), full=(24, 36))
def test_no_record_is_lost(
    damages: int, fills: int, small_disk: Path | None, tmp_path: Path, figures: dict[str, Any]
) -> None:
    """Damaged checkpoints; a disk that runs full at ever later moments; one that is read-only."""
    assert children.run([[*WORDS, f"results_dir={tmp_path}", "study=unbroken"]], tmp_path / "unbroken.txt") == 0
    figures["damaged_checkpoints"] = damage(tmp_path, damages)
    figures["full_disk"] = NOT_MOUNTED if small_disk is None else fill(small_disk, tmp_path / "unbroken", fills)
    figures["read_only"] = NOT_MOUNTED if small_disk is None else read_only(small_disk)


def damage(folder: Path, damages: int) -> dict[str, Any]:
    """Truncate and flip bits of the newest checkpoint, or of both: the one before is used, or the run starts again."""
    choose = random.Random(SEED)
    kinds = [("truncate", 1), ("flip", 1), ("truncate", 1), ("flip", 2), ("flip", 1), ("truncate", 2)]
    used = Counter({"the one before": 0, "none": 0})
    for number in range(damages):
        how, count = kinds[number % len(kinds)]
        study, output = f"damaged-{number}", folder / f"damaged-{number}.txt"
        command = [*WORDS, f"results_dir={folder}", f"study={study}"]
        assert children.run([command], output, partial(patches.stop_at, choose.randint(7, 28))) == 0
        for name in ("state.pt", "state-before.pt")[:count]:
            spoil(only_run(folder / study) / "checkpoint" / name, how, choose)
        assert children.run([command], output) == 0, output.read_text()
        said = output.read_text()
        assert said.count("is not used: ") == count
        assert ("goes on from the checkpoint before" in said) == (count == 1)
        check_equal(folder / study, folder / "unbroken", 1)
        used["the one before" if count == 1 else "none"] += 1
    return {"cases": damages, "used": dict(used), "finished_bit_equal": used.total()}


def spoil(path: Path, how: str, choose: random.Random) -> None:
    """Cut the file off somewhere, or flip one of its bits."""
    data = bytearray(path.read_bytes())
    if how == "truncate":
        del data[choose.randrange(len(data)) :]
    else:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    path.write_bytes(bytes(data))


def fill(small: Path, unbroken: Path, fills: int) -> dict[str, Any]:
    """Leave ever more room until the run gets through; when it stops it says so, and goes on when there is room.

    A run that checkpoints at every step runs full there; one that does not, at any of its other records.
    """
    stopped: Counter[str] = Counter()
    equal = 0
    for number in range(fills):
        saves = number % 2 == 0
        room = round(STATES * (number / fills) ** 2) if saves else 4 * round(PAGES * number / fills)
        study, output, ballast = f"fill-{number}", small.parent / f"fill-{number}.txt", small / "ballast"
        free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, free - room * 1024))
        rare = () if saves else ("trainer.checkpoint_seconds=1000",)
        command = [*WORDS, *rare, f"results_dir={small}", f"study={study}"]
        if children.run([command], output) != 0:
            said = output.read_text()
            (line,) = (line for line in said.splitlines() if line.startswith("vrbench:"))
            assert "No space left on device" in line
            assert "Traceback" not in said
            check_whole(small / study)
            stopped[Path(line.split(": ")[1]).name] += 1
        ballast.unlink()
        assert children.run([command], output) == 0, output.read_text()
        equal += check_equal(small / study, unbroken, 1)
        subprocess.run(["rm", "-r", str(small / study)], check=True)
    assert len(stopped) >= min(4, fills // 3), f"the disk ran full in too few places: {stopped}"
    return {"tries": fills, "stopped_at": dict(sorted(stopped.items())), "finished_bit_equal": equal}


def check_whole(study: Path) -> None:
    """No record may be half-written, no temporary file left."""
    for path in study.rglob("*") if study.exists() else ():
        assert path.suffix != ".tmp"
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".jsonl":
            assert path.read_bytes()[-1:] in (b"\n", b"")
            [json.loads(line) for line in path.read_text().splitlines()]


def read_only(small: Path) -> dict[str, Any]:
    """One line, and no run."""
    output = small.parent / "read-only.txt"
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    try:
        code = children.run([[*WORDS, f"results_dir={small}", "study=x"]], output)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    lines = output.read_text().splitlines()
    assert code != 0
    assert len(lines) == 1
    assert "Read-only file system" in lines[0]
    return {"exit_code": code, "lines": len(lines)}
