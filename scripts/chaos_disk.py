"""A disk that is full, read-only or untrue: refusals in one line, nothing half-written, and the same end afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chaos_common as common
from chaos_common import expect, short

TASK = "diffusion_digits"
"""It writes pictures too."""
PAGES = 16
"""Pages of 4 KiB that are enough for such a run without checkpoints."""
STATES = 600
"""KiB that are enough with them."""


def disk(folder: Path, damages: int, fills: int, seed: int) -> dict[str, Any]:
    """A small file system that runs full at ever later moments, one that is read-only, and damaged checkpoints."""
    folder.mkdir(parents=True)
    log = folder / "log.txt"
    words = [*short(TASK), "trainer.checkpoint_seconds=0"]
    expect(common.in_child(lambda: common.vrbench(*words, f"results_dir={folder}", "study=unbroken"), log) == 0, "run")
    (unbroken,) = common.run_folders(folder / "unbroken")
    figures = {"damaged_checkpoints": _damage(folder, unbroken, words, damages, random.Random(seed))}
    small = folder / "small"
    with _small_disk(small) as mounted:
        if not mounted:
            return figures | {"full_disk": "not run: mounting a tmpfs is not allowed here", "read_only": "not run"}
        return figures | {"full_disk": _fill(small, unbroken, words, fills), "read_only": _read_only(small, words)}


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


def _fill(small: Path, unbroken: Path, words: list[str], fills: int) -> dict[str, Any]:
    """Leave ever more room until the run gets through; when it stops it says so, and goes on when there is room.

    A run that checkpoints at every step runs full there; one that does not, at any of its other records.
    """
    stopped: dict[str, int] = {}
    tries = equal = 0
    for number in range(fills):
        tries += 1
        saves = number % 2 == 0
        room = round(STATES * (number / fills) ** 2) if saves else 4 * round(PAGES * number / fills)
        study, output, ballast = f"fill-{number}", small.parent / f"fill-{number}.txt", small / "ballast"
        free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(4096, free - room * 1024))
        rare = () if saves else ("trainer.checkpoint_seconds=1000",)
        command = [*words, *rare, f"results_dir={small}", f"study={study}"]
        code = common.in_child(lambda: common.vrbench(*command), output)  # noqa: B023
        lines = [line for line in output.read_text().splitlines() if line.startswith("vrbench:")]
        if code != 0:
            expect("Traceback" not in output.read_text(), f"a traceback in {output}")
            expect(len(lines) == 1 and "No space left on device" in lines[0], f"{output}: {lines}")
            _whole(small / study)
            name = Path(lines[0].split(": ")[1]).name
            stopped[name] = stopped.get(name, 0) + 1
        ballast.unlink()
        expect(common.in_child(lambda: common.vrbench(*command), output) == 0, f"not resumed: {output}")  # noqa: B023
        equal += common.check_equal(small / study, unbroken.parent, 1)
        subprocess.run(["rm", "-r", str(small / study)], check=True)
    expect(len(stopped) >= min(4, fills // 3), f"the disk ran full in too few places: {stopped}")
    return {"tries": tries, "stopped_at": dict(sorted(stopped.items())), "finished_bit_equal": equal}


def _whole(study: Path) -> None:
    """Raises Failed where a record is half-written or a temporary file is left."""
    for path in study.rglob("*") if study.exists() else ():
        expect(path.suffix != ".tmp", f"a scrap is left: {path}")
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".jsonl":
            expect(path.read_bytes()[-1:] in (b"\n", b""), f"{path} has a torn line")
            [json.loads(line) for line in path.read_text().splitlines()]


def _read_only(small: Path, words: list[str]) -> dict[str, Any]:
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    output = small.parent / "read-only.txt"
    code = common.in_child(lambda: common.vrbench(*words, f"results_dir={small}", "study=x"), output)
    subprocess.run(["mount", "-o", "remount,rw", str(small)], check=True)
    lines = output.read_text().splitlines()
    expect(code != 0 and len(lines) == 1 and "Read-only file system" in lines[0], f"read-only: {code}, {lines}")
    return {"exit_code": code, "lines": len(lines)}


def _damage(folder: Path, unbroken: Path, words: list[str], damages: int, choose: random.Random) -> dict[str, Any]:
    """Truncate and flip bits of the newest checkpoint, or of both: the one before is used, or the run starts again."""
    kinds = [("truncate", 1), ("flip", 1), ("truncate", 1), ("flip", 2), ("flip", 1), ("truncate", 2)]
    cases = [kinds[number % len(kinds)] for number in range(damages)]
    used = {"the one before": 0, "none": 0}
    for number, (how, count) in enumerate(cases):
        study, output = f"damaged-{number}", folder / f"damaged-{number}.txt"
        command = [*words, f"results_dir={folder}", f"study={study}"]
        stop = choose.randint(7, 28)
        code = common.in_child(lambda: _stopped_at(stop, command), output)  # noqa: B023
        expect(code == 0, f"not stopped: {output}")
        (checkpoints,) = folder.glob(f"{study}/*/checkpoint")
        for name in ("state.pt", "state-before.pt")[:count]:
            _spoil(checkpoints / name, how, choose)
        expect(common.in_child(lambda: common.vrbench(*command), output) == 0, f"not resumed: {output}")  # noqa: B023
        said = output.read_text()
        expect(said.count("is not used: ") == count, f"{output} does not say what is damaged")
        expect(("goes on from the checkpoint before" in said) == (count == 1), f"{output} does not say how it goes on")
        common.check_equal(folder / study, unbroken.parent, 1)
        used["the one before" if count == 1 else "none"] += 1
    return {"cases": len(cases), "used": used, "finished_bit_equal": sum(used.values())}


def _stopped_at(step: int, command: list[str]) -> int:
    from vrbench.trainer import Trainer

    fit = Trainer.fit
    Trainer.fit = lambda self, writer, *_: fit(self, writer, lambda: self.step >= step)  # type: ignore[method-assign]
    return common.vrbench(*command)


def _spoil(path: Path, how: str, choose: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if how == "truncate":
        del data[choose.randrange(len(data)) :]
    else:
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    path.write_bytes(bytes(data))
