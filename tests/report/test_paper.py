"""The paper's tables beside run folders: which claims are answered, and how."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml
from made_runs import make_run

from vrbench.report import paper
from vrbench.report.collect import collect


def losses(root: Path, optimizer: str, mean: float, *, task: str = "pydoc", **settings: float) -> None:
    """Eight paired seeds whose losses share their noise."""
    noise = random.Random(1)
    for seed in range(8):
        value = mean + noise.gauss(0, 0.01)
        make_run(
            root, value, task=task, optimizer=optimizer, seed=seed, metric="loss", direction="min", settings=settings
        )


def written(root: Path) -> str:
    return paper.write(collect([root]), root / "report" / "paper.md").read_text()


def test_table1_claims_are_answered_one_by_one(tmp_path: Path) -> None:
    losses(tmp_path, "vradam", 5.0)
    losses(tmp_path, "adamw", 5.5)
    losses(tmp_path, "radam", 4.5)
    losses(tmp_path, "sgd", 5.0)
    text = written(tmp_path)
    answers = {
        line.split("|")[1].strip(): line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("|")
    }
    assert answers["AdamW"] == "same direction: better by more than the smallest effect, for these settings"
    assert answers["RAdam"] == "not the same direction: worse by more than the smallest effect, for these settings"
    assert answers["SGD+Nesterov"] == "not the same direction: equivalent, for these settings"
    assert "| 6.47 / 6.5 (another source: test 6.13) |" in text
    assert "| 5.99 / 6 |" in text
    assert "pydoc with mlp stands in for wikitext2 with encoder_decoder" in text


def test_too_few_seeds_answer_nothing(tmp_path: Path) -> None:
    for seed in range(3):
        for optimizer, value in (("vradam", 0.1), ("adamw", 0.9)):
            make_run(tmp_path, value, task="cifar10", model="deeper_cnn", optimizer=optimizer, seed=seed, metric="loss",
                     direction="min")  # fmt: skip
    text = written(tmp_path)
    assert "nothing can be said: insufficient data (at least 3 more seeds for any verdict" in text
    assert "task and model are the paper's, but not their size (trainer.epochs=1 for 100)" in text


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ([64, 128, 256], "Data, model and length are of the paper's size"),
        ([16, 32, 64], "task and model are the paper's, but not their size (model.channels=[16, 32, 64] "),
    ],
)  # fmt: skip
def test_figures_compare_where_the_paper_s_task_has_its_size(tmp_path: Path, channels: list[int], said: str) -> None:
    for seed in range(3):
        for optimizer, value in (("vradam", 0.1), ("adamw", 0.9)):
            folder = make_run(tmp_path, value, task="cifar10", model="deeper_cnn", optimizer=optimizer, seed=seed,
                              metric="loss", direction="min")  # fmt: skip
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["model"] = {"channels": channels, "hidden": 512}
            config["trainer"]["epochs"] = 100
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert said in written(tmp_path)


def test_table4_asks_whether_two_is_the_best_power(tmp_path: Path) -> None:
    for power, mean in ((2, 1.0), (3, 1.2), (4, 0.9)):
        noise = random.Random(1)
        for seed in range(8):
            make_run(tmp_path, 0.5, optimizer="vradam", seed=seed, settings={"power": float(power)})
            folder = max((tmp_path / "made").iterdir(), key=lambda path: path.stat().st_mtime_ns)
            summary = json.loads((folder / "summary.json").read_text())
            summary["metrics"]["test/loss"] = mean + noise.gauss(0, 0.01)
            (folder / "summary.json").write_text(json.dumps(summary))
    text = written(tmp_path)
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "same direction: better" in rows["3"]
    assert "1.155" in rows["3"]
    assert "not the same direction: worse" in rows["4"]
    assert "not in our sources" in rows["4"]
    assert "not tuned again for each k" in text


def test_powers_that_were_tuned_each_by_itself_are_table4(tmp_path: Path) -> None:
    """Beside them a form of the gate with one power only, which is no row of the table."""
    how = {"trials": 8, "budget": 8, "sampler": "random", "seeds": [1000], "metric": None, "space": {}, "edges": []}
    forms = [(2.0, "velocity", 0.01), (3.0, "velocity", 0.02), (2.0, "gradient", 0.03)]
    for number, (power, gate_on, lr) in enumerate(forms):
        tuned = {**how, "search": f"s{number}", "params": {"optimizer.lr": lr}, "replicate": 0}
        settings = {"power": power, "gate_on": gate_on, "lr": lr}
        for seed in range(8):
            loss = 1.0 + lr + random.Random(seed).gauss(0, 0.001)
            make_run(tmp_path, loss, seed=seed, metric="loss", direction="min", settings=settings, tuned=tuned)
    text = written(tmp_path)
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert [row for row in rows if row.isdigit()] == ["2", "3"]
    assert "Each k was tuned by itself: optimizer.lr." in text


def test_figure2_looks_at_the_gate(tmp_path: Path) -> None:
    def run(seed: int, gates: list[float]) -> None:
        folder = make_run(tmp_path, 0.9, model="resnet32", seed=seed)
        rows = [{"step": 10 * i, "optim/gate": gate, "eos/sharpness": 30.0} for i, gate in enumerate(gates, 1)]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    run(0, [0.7, 0.5, 0.8, 0.97])
    run(1, [0.7, 0.8, 0.4, 0.97])
    run(2, [0.7, 0.5, 0.6, 0.7])
    rows = [line for line in written(tmp_path).splitlines() if line.startswith("| vradam")]
    assert [row.split("|")[-2].strip() for row in rows] == [
        "same direction",
        "not the same direction",
        "not the same direction",
    ]
    assert "0.500 at step 20" in rows[0]


def test_runs_that_answer_nothing_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, 0.5, optimizer="lion", task="mnist")
    with pytest.raises(ValueError, match="none of these runs answers"):
        written(tmp_path)
