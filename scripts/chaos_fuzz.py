"""Commands and YAML files that nobody meant: each runs, or ends in one line with a non-zero code and leaves nothing."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chaos_common as common
import yaml
from chaos_common import Failed, expect
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

LONGEST = 120
"""Seconds after which a case hangs."""

KEYS = [
    "task", "model", "optimizer", "schedule", "probe", "trainer", "logger", "experiment", "sweep", "seed", "study",
    "force", "task.batch_size", "task.eval_batch_size", "task.crop_padding", "task.flip", "task.mean", "task.std",
    "task.criterion", "task.label_smoothing", "task.top_k", "task.name", "task.data", "task.data._target_",
    "task.data.val_fraction", "task.data.test_fraction", "task.data.split_seed", "task.data.train_size",
    "model._target_", "model.hidden", "model.activation", "optimizer.lr", "optimizer.betas", "optimizer.beta3",
    "optimizer.alpha1", "optimizer.eps", "optimizer.weight_decay", "optimizer.power", "optimizer.gate_on",
    "optimizer.gate_scope", "optimizer.foreach", "optimizer.fused", "optimizer.maximize", "optimizer._target_",
    "optimizer._partial_", "optimizer._convert_", "schedule._target_", "trainer.epochs", "trainer.max_steps",
    "trainer.fraction", "trainer.accumulate", "trainer.zero_grad", "trainer.clip_norm", "trainer.precision",
    "trainer.channels_last", "trainer.ema_decay", "trainer.log_every", "trainer.eval_every", "trainer.render_every",
    "trainer.checkpoint_seconds", "trainer.device", "trainer.threads", "logger.console._target_",
    "probe.optim._target_", "nonsense", "task.nonsense", "trainer..epochs", "hydra.job.name", "a b", "é",
]  # fmt: skip
WORDS = [
    "digits", "vradam", "adamw", "sgd", "mlp", "resnet18", "lstm", "constant", "warmup_cosine", "eos", "none", "null",
    "true", "false", "cpu", "cuda", "auto", "float32", "bfloat16", "nan", "inf", "-inf", "1e400", "0", "-1", "1", "2",
    "0.5", "1e-3", "[]", "{}", "[1,2]", "[0.9,0.999]", "{a:1}", "os.system", "builtins.eval", "torch.optim.SGD",
    "tasks.nothing.There", "???", "${seed}", "${nothing}", "${oc.env:HOME}", "${", "}", "[", "'", '"', "\\", "../x",
    "/", "a/b", "..", "x\x00y", "\n", "é€", "☃", "9" * 30, "1_000", "0x10", "a=b", "a,b", "1,2", "range(0,2)", "*", "",
]  # fmt: skip

plain_text = st.text(max_size=8)
values = st.one_of(
    st.sampled_from(WORDS),
    st.integers(-3, 300).map(str),
    st.floats(-10, 10).map(repr),
    plain_text,
)
assignments = st.tuples(st.sampled_from(["", "", "", "", "+", "++", "~"]), st.sampled_from(KEYS), values).map(
    lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"
)
meant = st.sampled_from(
    [
        "optimizer=adamw", "optimizer=sgd", "optimizer.lr=0.01", "optimizer.lr=0", "optimizer.weight_decay=0.1",
        "task.batch_size=7", "task.flip=true", "task.crop_padding=1", "task.label_smoothing=0.1", "task.top_k=3",
        "task.data.train_size=50", "model.hidden=[]", "model.hidden=[3,5]", "model.activation=tanh", "seed=17",
        "schedule=warmup_cosine", "probe=none", "trainer.clip_norm=1", "trainer.accumulate=2", "trainer.epochs=1",
        "trainer.ema_decay=0.9", "trainer.precision=bfloat16", "trainer.log_every=1", "study=a/b", "force=true",
    ]
)  # fmt: skip
commands = st.lists(st.one_of(meant, meant, meant, meant, assignments, assignments, plain_text), min_size=1, max_size=3)
"""Overrides: what a user may mean, known keys with values from all over, sometimes no override at all."""

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.sampled_from(WORDS), plain_text,
    st.lists(st.integers(-2, 9), max_size=3),
)  # fmt: skip
KNOWN = [key.split(".") for key in KEYS]
trees = st.recursive(
    st.dictionaries(st.sampled_from([part[-1] for part in KNOWN]), leaves, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from([part[0] for part in KNOWN]), st.one_of(inner, leaves), max_size=3),
    max_leaves=6,
)
breaks = st.sampled_from(
    ["", "", "", "!!python/object/apply:os.system [true]\n", "&a *a\n", "\t- x\n", ": :\n", "- 1\n", "%\n"]
)
sound = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": st.fixed_dictionaries({"lr": st.floats(0, 1)}),
        "trainer": st.fixed_dictionaries({"max_steps": st.integers(0, 9), "accumulate": st.integers(0, 3)}),
        "task": st.fixed_dictionaries({"batch_size": st.integers(0, 99)}),
        "seed": st.integers(-1, 9),
        "study": st.sampled_from(["x", "a/b", "../x", ""]),
    },
)
files = st.one_of(
    sound.map(lambda tree: _dump(tree).encode()),
    st.tuples(trees, breaks).map(lambda parts: (_dump(parts[0]) + parts[1]).encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    plain_text.map(lambda text: text.encode("utf-8", "surrogatepass")),
)
"""YAML files: experiments that may run, trees of known keys, some broken afterwards, and bytes that are no YAML."""


def _dump(tree: Any) -> str:
    return "# @package _global_\n" + yaml.safe_dump(tree, allow_unicode=True)


def fuzz(folder: Path, cases: int, seed: int) -> dict[str, Any]:
    """So many cases in this process, half overrides, half YAML; raises Failed with the smallest that is not right."""
    folder.mkdir(parents=True)
    counts: Counter[str] = Counter()
    slowest = 0.0

    def take(words: list[str], kind: str) -> None:
        nonlocal slowest
        started = time.monotonic()
        counts[f"{kind}, {case(folder, words)}"] += 1
        slowest = max(slowest, time.monotonic() - started)

    rules = settings(
        max_examples=cases // 2, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip

    @seeded(seed)
    @rules
    @given(commands)
    def overrides(words: list[str]) -> None:
        take(words, "overrides")

    @seeded(seed)
    @rules
    @given(files)
    def yamls(content: bytes) -> None:
        (folder / "conf" / "experiment").mkdir(parents=True, exist_ok=True)
        (folder / "conf" / "experiment" / "fuzz.yaml").write_bytes(content)
        take([f"--config-dir={folder / 'conf'}", "experiment=fuzz"], "yaml")

    with short_runs():
        overrides()
        yamls()
    total = sum(counts.values())
    expect(total >= cases, f"only {total} of {cases} cases were tried")
    return {"cases": total, "outcomes": dict(sorted(counts.items())), "slowest_s": round(slowest, 2)}


def case(folder: Path, words: list[str]) -> str:
    """One command line: `ran`, or `refused` in one line with nothing left. Raises Failed for anything else."""
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    ours = [*common.SHORT, "trainer.max_steps=2", f"results_dir={results}"]
    given_keys = {word.lstrip("+~").split("=")[0] for word in words}
    ours = [word for word in ours if word.split("=")[0] not in given_keys]
    options = [word for word in words if word.startswith("-")]
    words = [word for word in words if not word.startswith("-")]
    out, err = io.StringIO(), io.StringIO()
    with _alarm(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = common.vrbench(*options, *ours, *words)
        except Exception as error:
            raise Failed(f"{words}: {type(error).__name__} came through: {error}") from error
    said = err.getvalue()
    lines = [line for line in said.splitlines() if line and "Warning" not in line and not line.startswith("  ")]
    if code == 0:
        return "ran"
    expect("Traceback" not in said, f"{words}: a traceback: {said[-2000:]}")
    expect(
        len(lines) == 1 and lines[0].startswith("vrbench: "), f"{words}: code {code} with {len(lines)} lines: {said!r}"
    )
    left = [str(path.relative_to(results)) for path in results.rglob("*")] if results.exists() else []
    expect(not left, f"{words}: refused, and leaves {left[:3]}")
    return "refused"


@contextlib.contextmanager
def short_runs() -> Iterator[None]:
    """Runs stop after two steps, whatever the case says of their length: to have started is to run."""
    from vrbench.trainer import Trainer

    fit = Trainer.fit
    Trainer.fit = lambda self, writer, *_: fit(self, writer, lambda: self.step >= 2)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Trainer.fit = fit  # type: ignore[method-assign]


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TimeoutHang(f"longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class TimeoutHang(BaseException):
    """A case hangs; no handler of ordinary exceptions may take it."""


def main() -> None:
    """Try one case by hand: `python scripts/chaos_fuzz.py optimizer.lr=nan`."""
    with short_runs():
        print(case(Path("fuzz-case").absolute(), sys.argv[1:]))


if __name__ == "__main__":
    main()
