"""Search spaces: of every optimizer, of the paper, by default, as an optimizer's YAML marks them; ranges and edges."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

pytest.importorskip("optuna", reason="searches need Optuna (pip install 'vrbench[search]')")

from vrbench.app.config import search_space
from vrbench.tuning import confirmation, spaces

Call = Callable[..., int]
CONF = ROOT / "conf"
SHORT = ("logger=none", "trainer.max_steps=4", "trainer.eval_every=2", "trainer.log_every=2", "trainer.threads=1")


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def space_of(*overrides: str) -> tuple[DictConfig, spaces.Space]:
    """The config and the space that a search with these overrides has."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
        return config, spaces.read_space(search_space(config, GlobalHydra.instance().config_loader()))


@pytest.mark.parametrize("optimizer", sorted(p.stem for p in (CONF / "optimizer").glob("*.yaml")))
def test_every_optimizer_has_a_space_of_keys_that_it_has(optimizer: str) -> None:
    config, space = space_of(f"optimizer={optimizer}", "sweep=tune")
    assert next(iter(space)) in ("optimizer.lr", "optimizer.d_coef")  # Prodigy's factor on the rate that it estimates
    for key in space:
        assert OmegaConf.select(config, key, throw_on_missing=True) is not None


@pytest.mark.parametrize(
    ("sweep", "task", "beta3"),
    [
        ("paper_images", "cifar10", (0.1, 1.5)),
        ("paper_language", "wikitext2", (0.1, 5.0)),
        ("paper_diffusion", "diffusion_mnist", (0.1, 2.0)),
        ("paper_gridworld", "gridworld", (0.1, 5.0)),
    ],
)
def test_the_papers_spaces(sweep: str, task: str, beta3: tuple[float, float]) -> None:
    for optimizer in ("vradam", "adamw"):
        config, space = space_of(f"task={task}", f"optimizer={optimizer}", f"sweep={sweep}")
        node = config.hydra.sweeper
        assert (node.metric, node.direction, node.n_trials) == ("val/loss", "min", 20)
        assert (space["optimizer.lr"].high, space["optimizer.lr"].log) == (0.1, True)
        for key in space:
            assert OmegaConf.select(config, key, throw_on_missing=True) is not None
        if optimizer == "vradam":
            assert (space["optimizer.beta3"].low, space["optimizer.beta3"].high) == beta3


def test_ranges_choices_and_nonsense() -> None:
    node = {"a": {"x": {"low": 1, "high": 9, "int": True}, "y": [[0.9, 0.99], True, None, "it's"], "z": None}}
    space = spaces.read_space(node)
    assert list(space) == ["a.x", "a.y"]
    assert list(space["a.y"].choices) == ["[0.9,0.99]", "true", "null", "'it\\'s'"]
    wrongs: tuple[Any, ...] = (
        3,
        {"low": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": 2, "high": 1},
        {"low": 1, "top": 2},
    )
    for wrong in (*wrongs, []):
        with pytest.raises(ValueError, match=r"space\.a\.x="):
            spaces.read_space({"a": {"x": wrong}})
    with pytest.raises(ValueError, match="names no parameter"):
        spaces.read_space({})


def test_literals_read_back_as_they_were() -> None:
    values = {
        "lr": 1e-05,
        "betas": [0.9, 0.999],
        "path": "a/b c, d=e",
        "none": None,
        "on": False,
        "word": "null",
        "n": 3,
    }
    overrides = [f"+x.{key}={confirmation.literal(value)}" for key, value in values.items()]
    assert OmegaConf.to_container(composed(*overrides).x) == values


def test_edges_are_measured_on_the_ranges_own_scale() -> None:
    space = spaces.read_space({"l": {"low": 1e-4, "high": 1.0, "log": True}, "u": {"low": 0.0, "high": 1.0}})
    assert spaces.edges({"l": 1.05e-4, "u": 0.5}, space) != []  # 0.5 % of four decades
    assert spaces.edges({"l": 2e-4, "u": 0.02}, space) == []
    (line,) = spaces.edges({"l": 0.1, "u": 0.995}, space)
    assert line.startswith("u=0.995 lies on the upper edge of [0, 1]")


# ---- the default ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr", "low", "high"),
    [(1e-3, 1e-5, 1e-1), (3e-4, 1e-6, 1e-2), (9.99e-4, 1e-6, 1e-2), (0.05, 1e-4, 1.0), (1, 0.01, 100.0)],
)
def test_the_rate_alone_is_searched_over_two_decades_on_either_side(lr: float, low: float, high: float) -> None:
    range_ = {"low": low, "high": high, "log": True}
    assert spaces.default_space(lr) == {"optimizer": {"lr": range_}}


def test_what_has_no_default_is_refused() -> None:
    for lr in (0, -1.0, float("inf"), float("nan"), None, "fast", True):
        with pytest.raises(ValueError, match=f"^lr={lr}: no range"):
            spaces.default_space(lr)
    with pytest.raises(ValueError, match=r"^_search_=lr: must say"):
        spaces.default_space(0.1, "lr")


def test_changes_reach_into_ranges() -> None:
    space = {"optimizer": {"lr": {"low": 1, "high": 2, "log": True}, "kind": ["a", "b"]}}
    changes = {"optimizer": {"lr": {"high": 5}, "kind": None}, "task": {"size": [1, 2]}}
    assert spaces.merged(space, changes) == {
        "optimizer": {"lr": {"low": 1, "high": 5, "log": True}, "kind": None},
        "task": {"size": [1, 2]},
    }
    assert spaces.merged(space, {"optimizer": {"lr": [3, 4]}})["optimizer"]["lr"] == [3, 4]


PLAIN = "_target_: torch.optim.SGD\n_partial_: true\n_convert_: all\nlr: 0.03\nmomentum: 0.5\n"
MARKED = f"{PLAIN}_search_:\n  lr: {{low: 0.001, high: 0.1, log: true}}\n  momentum: [0.5, 0.9]\n"


def searched(results: Path) -> tuple[dict[str, Any], list[str]]:
    """The space of the only search, and the configs of its runs."""
    (path,) = results.glob("default/search/*/trials.json")
    configs = [path.read_text() for path in results.glob("default/tune/*/config.yaml")]
    return json.loads(path.read_text())["settings"]["space"], configs


@pytest.mark.parametrize(
    ("yaml", "changes", "space"),
    [
        (PLAIN, [], {"optimizer": {"lr": {"low": 1e-4, "high": 1.0, "log": True}}}),
        (
            MARKED,
            ["++hydra.sweeper.space.optimizer.lr.high=0.2", "+hydra.sweeper.space.task.batch_size=[32,64]"],
            {
                "optimizer": {"lr": {"low": 0.001, "high": 0.2, "log": True}, "momentum": [0.5, 0.9]},
                "task": {"batch_size": [32, 64]},
            },
        ),
    ],
    ids=["by default", "marked"],
)
def test_an_optimizer_is_searched_with_its_one_yaml(
    yaml: str, changes: list[str], space: dict[str, Any], vrbench: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "conf/optimizer"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(yaml)
    here = (f"--config-dir={tmp_path / 'conf'}", "optimizer=mine")
    assert vrbench("-m", *here, "sweep=tune", "hydra.sweeper.n_trials=2", *SHORT, *changes) == 0
    found, configs = searched(tmp_path)
    assert found == space
    assert len(configs) == 2
    assert not any("_search_" in config for config in configs)
    assert vrbench("-m", *here, "experiment=confirm", "seed=0", *SHORT) == 0
    assert vrbench(*here, *SHORT) == 0


def test_a_mark_is_refused_where_it_names_no_argument(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "conf/optimizer"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"{PLAIN}_search_: {{rho: [1, 2]}}\n")
    (folder / "other.yaml").write_text(f"{PLAIN}_search_: [lr]\n")
    start = ("-m", f"--config-dir={tmp_path / 'conf'}", "sweep=tune", *SHORT)
    for name, says in (("mine", "hydra.sweeper.space.optimizer.rho=…: the config has no such key"),
                       ("other", "optimizer._search_=['lr']: must say what to search")):  # fmt: skip
        assert vrbench(*start, f"optimizer={name}") == 2
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert line.startswith(f"vrbench: {says}")


def test_a_space_of_its_own_is_the_whole_of_it(vrbench: Call, tmp_path: Path) -> None:
    for name, text in (("optimizer/mine", MARKED), ("sweep/space/mine", "optimizer: {momentum: [0.5, 0.9]}\n")):
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    here = (f"--config-dir={tmp_path / 'conf'}", "optimizer=mine")
    assert vrbench("-m", *here, "sweep=tune", "hydra.sweeper.n_trials=1", *SHORT) == 0
    assert searched(tmp_path)[0] == {"optimizer": {"momentum": [0.5, 0.9]}}
