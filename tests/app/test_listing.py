"""`vrbench list`, and that docs/optimizers.md is its table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT

from vrbench.app import listing
from vrbench.app.project import CONF

PATHS = sorted((CONF / "optimizer").glob("*.yaml"))


def test_a_head_comment_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# Mine (arXiv 2401.01234): up.  \n# Trap: down. As in\n# arXiv 1.2\nlr: 1  # arXiv 2501.00001\n# no\n"
    )
    assert listing.described(path) == listing.Described(
        "Mine (arXiv 2401.01234): up.", "Trap: down. As in arXiv 1.2", "2401.01234"
    )
    path.write_text("lr: 1\n")
    assert listing.described(path) == listing.Described("", "", "")


def row(name: str) -> tuple[str, ...]:
    costs = {name: {"step": {"ratio": 1.234}, "training_step": {"ratio": 2.0}}}
    _, found = listing.optimizers([CONF / f"optimizer/{name}.yaml"], costs)
    return found


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("adamw", ("1711.05101", "torch", "2.00", "1.23", "2.00", "")),
        ("sam", ("2010.01412", "pytorch_optimizer", "1.00", "1.23", "2.00", "two gradients a step")),
        ("activelr_adamw", ("2301.10133", "ours", "5.00", "1.23", "2.00", "the epoch's length")),
        ("rad", ("2412.02291", "ours", "2.00", "1.23", "2.00", "the run's length")),
        ("prodigy", ("2306.06101", "pytorch_optimizer", "4.00", "1.23", "2.00", "one rate for all groups")),
    ],
)
def test_what_is_said_of_an_optimizer(name: str, want: tuple[str, ...]) -> None:
    assert row(name) == (name, *want)


def test_state_is_counted_in_lists_and_groups() -> None:
    """Shampoo of two layers of 64 × 64: momentum of 8320, and for a matrix 4·64², for a vector 2·64² numbers."""
    optimizer, count = listing.stepped(listing.makes(CONF / "optimizer/shampoo.yaml"))
    assert count == 2 * (64 * 64 + 64)
    assert listing.state_bytes(optimizer) == 4 * (count + 2 * 4 * 64**2 + 2 * 2 * 64**2)


def test_plain_names_and_a_wrong_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["probes"]) == 0
    assert {"eos", "none", "optim"} <= set(capsys.readouterr().out.splitlines())
    assert listing.main(["optimisers"]) == 2
    assert "did you mean optimizers?" in capsys.readouterr().err


def test_the_docs_table_is_that_of_the_yamls() -> None:
    """One row each: name, rule, arXiv id, where it comes from, and what its YAML notes; none for one that was added."""
    lines = (ROOT / "docs/optimizers.md").read_text().splitlines()
    table = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert list(table.values()) == [docs_row(path) for path in PATHS if path.stem in table]
    assert len(table) >= 46


def docs_row(path: Path) -> str:
    said = listing.described(path)
    target = next(line for line in path.read_text().splitlines() if line.startswith("_target_: ")).split()[1]
    place = target.split(".")[0] if not target.startswith("vrbench") else f"optimizers/{target.split('.')[2]}.py"
    return f"| `{path.stem}` | {said.rule} | {said.arxiv} | {place} | {said.notes} |"


def test_every_optimizer_of_the_page_has_a_cost() -> None:
    record = json.loads((ROOT / listing.COSTS).read_bytes())
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/optimizers.md").read_text(), re.M)
    assert record["optimizers"].keys() == set(rows)
    assert record["optimizers"]["adamw"]["training_step"]["ratio"] == 1.0
