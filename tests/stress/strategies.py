"""Commands and YAML files for the fuzzing: some as users mean them, most not."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

KEYS = [
    "task", "model", "optimizer", "schedule", "probe", "trainer", "logger", "experiment", "sweep", "seed", "study",
    "force", "task.batch_size", "task.eval_batch_size", "task.crop_padding", "task.flip", "task.mean", "task.std",
    "task.criterion", "task.label_smoothing", "task.top_k", "task.name", "task.data", "task.data._target_",
    "task.data.val_fraction", "task.data.test_fraction", "task.data.split_seed", "task.data.train_size",
    "task.data.val_size", "task.data.test_size",
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
    sound.map(lambda tree: dump(tree).encode()),
    st.tuples(trees, breaks).map(lambda parts: (dump(parts[0]) + parts[1]).encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    plain_text.map(lambda text: text.encode("utf-8", "surrogatepass")),
)
"""YAML files: experiments that may run, trees of known keys, some broken afterwards, and bytes that are no YAML."""


def dump(tree: Any) -> str:
    """A file of conf/experiment."""
    return "# @package _global_\n" + yaml.safe_dump(tree, allow_unicode=True)
