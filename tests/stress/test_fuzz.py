"""Commands and YAML files that nobody meant: each runs, or ends in one line with a non-zero code and leaves nothing."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis", reason="fuzzing needs hypothesis (pip install 'vrbench[dev]')")

import children
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from stress import strategies
from stress.short_runs import SHORT
from stress.sizes import SEED, sizes

from vrbench.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore")
LONGEST = 120
"""Seconds after which a case hangs."""


@pytest.fixture
def _two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs stop after two steps, whatever the case says of their length: to have started is to run."""
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, writer, *_: fit(self, writer, lambda: self.step >= 2))


@pytest.mark.usefixtures("_two_steps")
@sizes("cases, seed", short=(60, 1), full=(2000, SEED))
def test_every_case_runs_or_is_refused(cases: int, seed: int, tmp_path: Path, figures: dict[str, Any]) -> None:
    """Half of the cases are overrides, half YAML files; what fails is shrunk to its smallest."""
    outcomes: Counter[str] = Counter()
    slowest = 0.0

    def take(words: list[str], kind: str) -> None:
        nonlocal slowest
        started = time.monotonic()
        outcomes[f"{kind}, {outcome(tmp_path / 'results', words)}"] += 1
        slowest = max(slowest, time.monotonic() - started)

    rules = settings(
        max_examples=cases // 2, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip

    @seeded(seed)
    @rules
    @given(strategies.commands)
    def overrides(words: list[str]) -> None:
        take(words, "overrides")

    @seeded(seed)
    @rules
    @given(strategies.files)
    def yamls(content: bytes) -> None:
        (tmp_path / "conf" / "experiment").mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / "experiment" / "fuzz.yaml").write_bytes(content)
        take([f"--config-dir={tmp_path / 'conf'}", "experiment=fuzz"], "yaml")

    overrides()
    yamls()
    figures |= {"cases": outcomes.total(), "outcomes": dict(sorted(outcomes.items())), "slowest_s": round(slowest, 2)}
    assert outcomes.total() >= cases
    assert outcomes.keys() == {f"{kind}, {end}" for kind in ("overrides", "yaml") for end in ("ran", "refused")}


@pytest.mark.parametrize("breaks", [RuntimeError("broken on purpose"), SystemExit("no line of vrbench's")])
def test_what_is_not_right_would_be_found(
    breaks: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object) -> None:
        raise breaks

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(AssertionError, match="a traceback" if isinstance(breaks, RuntimeError) else "lines"):
        outcome(tmp_path / "results", ["optimizer.lr=0.5"])


def outcome(results: Path, words: list[str]) -> str:
    """What one command line comes to: `ran`, or `refused` in one line with nothing left."""
    shutil.rmtree(results, ignore_errors=True)
    ours = [*SHORT, "trainer.max_steps=2", f"results_dir={results}"]
    theirs = {word.lstrip("+~").split("=")[0] for word in words}
    ours = [word for word in ours if word.split("=")[0] not in theirs]
    options = [word for word in words if word.startswith("-")]
    overrides = [word for word in words if not word.startswith("-")]
    said = io.StringIO()
    with limit(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = children.call(*options, *ours, *overrides)
    if code == 0:
        return "ran"
    lines = [line for line in said.getvalue().splitlines() if line and "Warning" not in line and line[:2] != "  "]
    assert "Traceback" not in said.getvalue(), f"{words}: a traceback: {said.getvalue()[-2000:]}"
    assert len(lines) == 1, f"{words}: code {code} with {len(lines)} lines: {said.getvalue()!r}"
    assert lines[0].startswith("vrbench: "), f"{words}: {lines[0]}"
    left = [str(path.relative_to(results)) for path in results.rglob("*")] if results.exists() else []
    assert left == [], f"{words}: refused, and leaves files"
    return "refused"


class Hangs(BaseException):
    """No handler of ordinary exceptions may take it."""


@contextlib.contextmanager
def limit() -> Iterator[None]:
    """Raises Hangs after `LONGEST` seconds; the time limit of the whole test goes on afterwards."""

    def ring(*_: Any) -> None:
        raise Hangs(f"longer than {LONGEST} s")

    handler = signal.signal(signal.SIGALRM, ring)
    whole, _ = signal.setitimer(signal.ITIMER_REAL, LONGEST)
    started = time.monotonic()
    try:
        yield
    finally:
        left = max(0.001, whole - (time.monotonic() - started)) if whole else 0
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left)
