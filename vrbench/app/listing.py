"""`vrbench list <kind>`: what conf/ offers. Of optimizers a table: where they come from, what they need and cost.

    vrbench list optimizers | tasks | models | schedules | probes | loggers

An optimizer's rule and arXiv id are read from the comment at the head of its YAML. What it needs and keeps is asked of
the optimizer itself, built and stepped on a small network; what a step costs is what `scripts/bench/rivals.py` has
measured on one machine (results/bench/rivals.json).
"""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from vrbench import terminal
from vrbench.app import targets
from vrbench.app.config import SEARCHED
from vrbench.app.project import CONF, config_dirs
from vrbench.app.refusals import ConfigError, offer, say

if TYPE_CHECKING:
    from torch.optim import Optimizer

KINDS = {f"{group}s": group for group in ("optimizer", "task", "model", "schedule", "probe", "logger")}
"""What can be listed, with its config group."""
COSTS = "results/bench/rivals.json"
"""The benchmark's record, relative to the folder that holds conf/."""
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Described:
    """What the comment at the head of a YAML says of its part."""

    rule: str
    """Its first sentence."""
    notes: str
    """The others: traps that the YAML avoids, advice."""
    arxiv: str
    """The first arXiv id that it names; empty where it names none."""


def described(path: Path) -> Described:
    """Read the comment at the head of a YAML, without what is for programs: its package and its `cite` line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(("# @package", "# cite:")):
            lines.append(line.lstrip("# ").rstrip())
    rule, _, notes = re.sub(r"\.\s", ".\n", " ".join(lines), count=1).partition("\n")
    found = _ARXIV.search(rule + notes)
    return Described(rule, notes, found[1] if found else "")


def makes(path: Path) -> Any:
    """What the YAML of an optimizer makes: `make(params)`, as hydra gives it. Raises what hydra raises."""
    node = OmegaConf.load(path)
    assert isinstance(node, DictConfig)
    node.pop(SEARCHED, None)
    targets.check(OmegaConf.to_container(node, resolve=True))
    return hydra.utils.instantiate(node)


def stepped(make: Any) -> tuple[Optimizer, int]:
    """The optimizer after two steps on a network of two layers of 64 × 64, and the number of its parameters."""
    import torch
    from torch import nn

    from vrbench.checks.optimizers import steps
    from vrbench.training.lengths import make_optimizer

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
        inputs = torch.randn(8, 64)
        optimizer = make_optimizer(make, model.parameters(), 400, 10)
        steps(optimizer, lambda: model(inputs).square().mean(), 2)
    return optimizer, sum(p.numel() for p in model.parameters())


def state_bytes(optimizer: Optimizer) -> int:
    """What the optimizer keeps between steps, its groups included."""
    own = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    return sum(_bytes([*optimizer.state.values(), *own]))


def _bytes(value: Any) -> Iterator[int]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value.nbytes
    elif isinstance(value, Mapping):
        for child in value.values():
            yield from _bytes(child)
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _bytes(child)


def needs(name: str, make: Any, optimizer: Optimizer) -> list[str]:
    """What an optimizer wants besides gradients, in words."""
    from vrbench.app.check import waivers
    from vrbench.training.capabilities import capabilities
    from vrbench.training.lengths import EPOCH, WHOLE_RUN, lengths

    asked, told = capabilities(optimizer), lengths(make)
    waived = waivers()["optimizer"].get(name, {})
    said = {
        "two gradients a step": asked.two_step,
        "gradients of gradients": asked.create_graph,
        "train() and eval()": asked.train_eval,
        "the run's length": any(argument in WHOLE_RUN for argument in told),
        "the epoch's length": any(argument in EPOCH for argument in told),
        "matrices: vectors get AdamW": any(group.get("use_muon") for group in optimizer.param_groups),
        "one rate for all groups": "groups_have_their_own_rate" in waived,
    }
    return [words for words, holds in said.items() if holds]


def origin(optimizer: Optimizer) -> str:
    """The library that an optimizer's class comes from: torch, pytorch_optimizer, or optimizers/ (ours)."""
    library = type(optimizer).__module__.split(".")[0]
    return "ours" if library == "vrbench" else library


def optimizers(paths: Sequence[Path], costs: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table of the optimizers of these YAMLs, its header first."""
    rows: list[tuple[str, ...]]
    rows = [("optimizer", "arXiv", "from", "state / parameter", "step / AdamW's", "training step / AdamW's", "needs")]
    for path in paths:
        name, make = path.stem, makes(path)
        try:
            optimizer, count = stepped(make)
        except ImportError as missing:
            rows.append((name, described(path).arxiv, f"{missing.name}: not installed", "", "", "", ""))
            continue
        cost = costs.get(name, {})
        ratios = [f"{cost[key]['ratio']:.2f}" if cost.get(key) else "" for key in ("step", "training_step")]
        kept = f"{state_bytes(optimizer) / 4 / count:.2f}"
        wanted = ", ".join(needs(name, make, optimizer))
        rows.append((name, described(path).arxiv, origin(optimizer), kept, *ratios, wanted))
    return rows


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as text in columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@terminal.output()
def main(arguments: list[str] | None = None) -> int:
    """Print what there is of a kind; returns 2 for a kind that there is not, else 0."""
    parser = argparse.ArgumentParser(
        prog="vrbench list", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="a config folder of your own")
    parser.add_argument("kind", help=", ".join(KINDS))
    options = parser.parse_args(arguments)
    if options.kind not in KINDS:
        return say(f"list {options.kind}: no such kind; {offer(options.kind, [*KINDS], 'vrbench list')}", 2)
    group = KINDS[options.kind]
    try:
        folders = [CONF, *config_dirs(options.config_dir)]
    except ConfigError as error:
        return say(str(error), 2)
    paths = sorted(path for folder in folders for path in (folder / group).glob("*.yaml"))
    if group != "optimizer":
        print(*(path.stem for path in paths), sep="\n")
        return 0
    record = CONF.parent / COSTS
    costs = json.loads(record.read_bytes())["optimizers"] if record.exists() else {}
    print(aligned(optimizers(sorted(paths, key=lambda path: path.stem), costs)))
    print(
        "\nstate: numbers of 32 bits, on matrices of 64 × 64. Steps: ratios of medians of one machine (" + COSTS + ")"
    )
    return 0
