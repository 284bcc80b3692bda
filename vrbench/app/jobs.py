"""The runs of a multirun before and after they run: checked, counted, told apart, and what broke."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vrbench.app.progress import Job, words_of
from vrbench.runs import records
from vrbench.runs.identity import decides
from vrbench.runs.standing import SKIPPED
from vrbench.runs.writer import cut_copies

NAMED_ALREADY = ("task", "optimizer", "seed", "study", "experiment", "sweep")
"""Keys that a run's line needs no word for: it has one, or all runs have the same."""


_SEED = re.compile(r"seed=(0|[1-9]\d*)")


class RunFailed(Exception):
    """A run of a multirun failed or was stopped, and has said so in one line; the others go on.

    Code 0: it was left out, and has said nothing.
    """

    def __init__(self, code: int, line: str = "") -> None:
        super().__init__(code, line)
        self.code = code
        self.line = line

    def __str__(self) -> str:
        return self.line or f"exit code {self.code}"


@dataclass(frozen=True)
class Checked:
    """What is kept of a run that was checked: its config would be much to hold for thousands."""

    directory: Path
    action: Literal["train", "anew", "skip"]
    line: str
    task: str
    optimizer: str
    seed: int

    def job(self, words: Sequence[str]) -> Job:
        """As it is watched; `words` are the overrides that tell it from others."""
        given = words_of([word for word in words if decides(word.lstrip("+~").partition("=")[0])], NAMED_ALREADY)
        arm = f"{self.task} · {' '.join(filter(None, [self.optimizer, given]))}"
        return Job(self.directory, f"{arm} · seed {self.seed}", arm)

    @property
    def over(self) -> bool:
        """Whether its folder says that it is over."""
        return records.is_over(self.directory)

    @property
    def settled(self) -> bool:
        """Whether there is nothing to do for it: it is over, and no crash after its end has left anything to mend."""
        over = self.action == "skip" and not (self.directory / "checkpoint").exists()
        return over and not cut_copies(self.directory)

    @property
    def saved(self) -> bool:
        """Whether it can be gone on with."""
        return not self.over and any((self.directory / "checkpoint").glob("*.pt"))


def seed_apart(job: Sequence[str]) -> tuple[tuple[str, ...], int | None]:
    """The overrides of a job without its seed, and the seed where it is given as a whole number: else all, and None."""
    seeds = [word for word in job if _SEED.fullmatch(word)]
    if len(seeds) != 1:
        return tuple(job), None
    return tuple(word for word in job if word != seeds[0]), int(seeds[0].removeprefix("seed="))


def planned(runs: Sequence[Checked]) -> str:
    """`36 runs: 23 to train, 1 to go on with, 12 over`, and what the runs that are over are not, a line each."""
    over = [run for run in runs if run.action == "skip"]
    begun = sum(run.action == "train" and run.saved for run in runs)
    counts = ((len(runs) - len(over) - begun, "to train"), (begun, "to go on with"), (len(over), "over"))
    first = f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(f'{count} {word}' for count, word in counts if count)}"
    lines = [run.line for run in over if run.line != SKIPPED]
    return "\n".join([first, *(f"  {lines.count(line)} of them {line}" for line in dict.fromkeys(lines))])


def stopped(runs: Sequence[Checked]) -> str:
    """`11 of 36 over, 1 saved, 24 to go`, as their folders have it."""
    over, saved = sum(run.over for run in runs), sum(run.saved for run in runs)
    return f"{over} of {len(runs)} over, {saved} saved, {len(runs) - over - saved} to go"


def varied(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """The overrides that tell each job from the others: those that not all have, or all of a job that is alone."""
    same = set(jobs[0]).intersection(*jobs) if len(jobs) > 1 else set()
    return [[word for word in job if word not in same] for job in jobs]


def broken(jobs: Sequence[Sequence[str]], ends: Sequence[Path | RunFailed], left_out: bool = False) -> str:
    """Which failed (or were left out) and why, those of one reason together: `optimizer=sgd seed=0, seed=1 (line)`."""
    reasons: dict[str, list[str]] = {}
    for words, end in zip(varied(jobs), ends, strict=True):
        if isinstance(end, RunFailed) and left_out == (end.code == 0):
            reasons.setdefault(end.line, []).append(" ".join(words))
    more = {line: f" and {len(names) - 3} more" if len(names) > 3 else "" for line, names in reasons.items()}
    return "; ".join(f"{', '.join(names[:3])}{more[line]} ({line})" for line, names in reasons.items())
