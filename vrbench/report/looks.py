"""What was looked at: each study remembers, in `<study>/looks.jsonl`, which comparisons were shown, with which runs.

Adding seeds until something is significant is a test too, and not the one whose p value is shown. So the report writes
down what it shows, and from the second look at more runs on an anytime-valid test decides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vrbench.report.arms import Arm
from vrbench.runs.index import digest
from vrbench.runs.records import now

if TYPE_CHECKING:
    from vrbench.report.compare import Comparison

FILE = "looks.jsonl"
Key = tuple[int, int]
Mode = Literal["auto", "fixed", "anytime"]


@dataclass(frozen=True)
class Seen:
    """What had been looked at before now of the runs that are paired now."""

    count: int
    """Looks at fewer of them."""
    first: dict[int, tuple[int, ...]]
    """The replicates in the order in which they were first seen, each with the seeds it then had; then the new ones."""
    order: tuple[Key, ...]
    """Replicates and seeds in the order in which they were first seen, within a look by number."""
    decides: bool = True
    """Whether the anytime-valid test decides."""


class Looks:
    """The looks of the studies that some arms lie in.

    `mode` says which test decides: `auto`, the anytime-valid one where fewer runs were looked at before; `anytime`,
    that one always; `fixed`, never. Files that cannot be read or written are named by `notes`.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        self.mode = mode
        self.notes: list[str] = []
        self._read: dict[Path, list[dict[str, Any]]] = {}

    def before(self, a: Arm, b: Arm, split: str, now_there: Iterable[Key]) -> Seen | None:
        """What was seen before of two arms' pairs (replicate, seed); None where it was nothing that matters."""
        keys = sorted(now_there)
        looks = self._of(a, b, split)
        seen = [sorted({(int(r), int(s)) for r, s in look["runs"]} & set(keys)) for look in looks]
        fewer = [there for there in seen if 0 < len(there) < len(keys)]
        if not (fewer or self.mode == "anytime"):
            return None
        order = tuple(dict.fromkeys(key for there in [*seen, keys] for key in there))
        first: dict[int, tuple[int, ...]] = {}
        for there in [*seen, keys]:
            for replicate in sorted({number for number, _ in there} - first.keys()):
                first[replicate] = tuple(seed for number, seed in there if number == replicate)
        return Seen(len(fewer), first, order, self.mode != "fixed")

    def record(self, found: Sequence[Comparison], split: str, what: str) -> None:
        """Write down what is shown: one line a comparison in each study that its runs lie in, once for the same runs.

        A folder that cannot be written is named in `notes`, and nothing else happens.
        """
        lines: dict[Path, list[dict[str, Any]]] = {}
        for one in found:
            if not (one.judged and one.keys):
                continue
            runs = [list(key) for key in sorted(one.keys)]
            if any(look["runs"] == runs for look in self._of(one.a, one.b, split)):
                continue
            line = {
                "when": now(),
                "what": what,
                "comparison": comparison_of(one.a, one.b, split),
                "names": [f"{one.a.task} {one.a.model}", one.a.label, one.b.label],
                "split": split,
                "family": one.verdict.tests,
                "units": one.pairs.units,
                "runs": runs,
            }
            for study in _studies(one.a, one.b):
                lines.setdefault(study, []).append(line)
        for study, own in lines.items():
            try:
                _append(study / FILE, own)
            except OSError as error:
                self.notes.append(
                    f"{study / FILE} cannot be written ({error.strerror}): this look will not be remembered, "
                    "and a later test cannot know of it."
                )
            self._read.pop(study, None)

    def _of(self, a: Arm, b: Arm, split: str) -> list[dict[str, Any]]:
        """The looks at two arms, oldest first; each once, though two studies have it."""
        wanted = comparison_of(a, b, split)
        looks = [look for study in _studies(a, b) for look in self._all(study) if look.get("comparison") == wanted]
        unique = {json.dumps(look, sort_keys=True): look for look in looks}
        return sorted(unique.values(), key=lambda look: str(look["when"]))

    def _all(self, study: Path) -> list[dict[str, Any]]:
        if study not in self._read:
            self._read[study] = list(_lines(study / FILE, self.notes))
        return self._read[study]


def comparison_of(a: Arm, b: Arm, split: str) -> str:
    """16 hex digits of a comparison, whichever of the two comes first: the same as long as the two are."""
    return digest({"arms": sorted([a.hash, b.hash]), "split": split})


def _studies(a: Arm, b: Arm) -> list[Path]:
    return sorted({run.directory.parent for arm in (a, b) for run in arm.over})


def _lines(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The lines of a file of looks; a torn one is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"{path} cannot be read ({error}): earlier looks are not known.")
        return
    for line in text.splitlines():
        try:
            look = json.loads(line)
        except ValueError:
            continue
        if isinstance(look, Mapping) and {"when", "runs"} <= look.keys():
            yield dict(look)


def _append(path: Path, looks: Sequence[Mapping[str, Any]]) -> None:
    """Add lines by one write at the end, on a line of their own whatever was there: readers see all of them or none."""
    data = "".join(f"{json.dumps(look)}\n" for look in looks).encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" + data if torn else data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
