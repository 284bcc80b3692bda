"""Write a search as a W&B sweep: the same ranges, ranked by the same metric, run by `wandb agent`.

    vrbench wandb sweep sweep=paper_images task=cifar10 optimizer=vradam > sweep.yaml
    wandb sweep sweep.yaml && wandb agent <entity>/<project>/<sweep id>
    vrbench wandb sweep --paper sweeps      # the paper's: five optimizers on four tasks, one file each

The arguments are those of `vrbench -m`; all but the search's own become part of the agent's command. W&B needs the
metric by name: for sweep=tune give hydra.sweeper.metric=val/loss hydra.sweeper.direction=min.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from vrbench.app.config import refuse_chosen, search_space, searched_groups
from vrbench.app.project import CONF, config_dirs, use
from vrbench.runs.records import write_whole
from vrbench.tuning.confirmation import flat_space

PAPER = {
    "cifar10": ["sweep=paper_images", "model=deeper_cnn"],
    "wikitext2": ["sweep=paper_language", "model=encoder_decoder"],
    "diffusion_mnist": [
        "sweep=paper_diffusion", "model=paper_unet", "trainer.ema_decay=null", "trainer.render_every=2105",
    ],
    "gridworld": ["sweep=paper_gridworld"],
}  # fmt: skip
"""The paper's four searches (arXiv 2505.13196): what each asks for beside the task and the optimizer."""
OPTIMIZERS: dict[str, dict[str, list[str]]] = {
    "vradam": {},
    "adamw": {},
    "sgd": {"wikitext2": ["optimizer.momentum=0.2"]},
    "radam": {},
    "rmsprop": {"wikitext2": ["optimizer.alpha=0.1", "optimizer.momentum=0.2"]},
}
"""Its optimizers, and what one of them is given on a task."""
METHODS = {"tpe": "bayes", "random": "random"}


def sweep(overrides: Sequence[str], given: Sequence[Path] = ()) -> dict[str, Any]:
    """The W&B sweep of the search that these overrides of `vrbench -m` describe, as plain values.

    `given` are config folders besides the project's. Raises ValueError where W&B cannot search like it: several seeds a
    trial, a grid, a metric that has no name.
    """
    use(config_dirs(given))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", list(overrides), return_hydra_config=True)
        if config.hydra.runtime.choices.get("sweep") is None:
            raise ValueError("sweep=null: name a search, sweep=tune say")
        loader = GlobalHydra.instance().config_loader()
        space = search_space(config, loader)
        refuse_chosen(searched_groups(space, config, loader), overrides)
    search = OmegaConf.to_container(config.hydra.sweeper)
    assert isinstance(search, dict)
    if search["sampler"] not in METHODS:
        raise ValueError(f"hydra.sweeper.sampler={search['sampler']}: W&B has {', '.join(METHODS)}")
    if search["metric"] is None:
        raise ValueError("hydra.sweeper.metric=null: W&B needs a name; give hydra.sweeper.metric and .direction")
    if len(search["seeds"]) != 1:
        raise ValueError(f"hydra.sweeper.seeds={search['seeds']}: a run of W&B's agent has one seed")
    kept = [word for word in overrides if not word.lstrip("+~").startswith(("sweep=", "hydra.", "hydra/"))]
    own = [f"--config-dir={folder}" for folder in given]
    study = [] if any(word.startswith("study=") for word in kept) else [f"study=wandb_{config.task.name}"]
    fixed = [f"seed={search['seeds'][0]}", "trainer.evaluate_test=false", *study, "logger.wandb.mode=online"]
    return {
        "program": "vrbench",
        "method": METHODS[search["sampler"]],
        "metric": {"name": search["metric"], "goal": f"{search['direction']}imize"},
        "run_cap": search["n_trials"],
        "command": ["vrbench", *own, *kept, *fixed, "${args_no_hyphens}"],
        "parameters": {key: parameter(leaf) for key, leaf in flat_space(space).items()},
    }


def parameter(leaf: Any) -> dict[str, Any]:
    """A range or a list of choices of a search space in W&B's words."""
    if not isinstance(leaf, Mapping):
        return {"values": list(leaf)}
    whole, log = leaf.get("int", False), leaf.get("log", False)
    if whole and log:
        raise ValueError(f"space={dict(leaf)}: W&B has no range of whole numbers that is logarithmic")
    kind = "log_uniform_values" if log else "int_uniform" if whole else "uniform"
    return {"distribution": kind, "min": leaf["low"], "max": leaf["high"]}


def main(words: Sequence[str]) -> None:
    """Print a sweep, or write the paper's. Raises as `sweep` does; ConfigError and Hydra's errors for wrong words."""
    parser = argparse.ArgumentParser(
        prog="vrbench wandb sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="as for vrbench -m: sweep=tune task=… optimizer=…")
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="a config folder of your own")
    parser.add_argument("--paper", type=Path, metavar="FOLDER", help="write the paper's sweeps there")
    options = parser.parse_args(words)
    if options.paper is None:
        print(yaml.safe_dump(sweep(options.overrides, options.config_dir), sort_keys=False), end="")
        return
    options.paper.mkdir(parents=True, exist_ok=True)
    for task, wanted in PAPER.items():
        for optimizer, settings in OPTIMIZERS.items():
            own = [*wanted, f"optimizer={optimizer}", *settings.get(task, [])]
            found = sweep([f"task={task}", *own, *options.overrides], options.config_dir)
            text = yaml.safe_dump(found, sort_keys=False).encode()
            path = options.paper / f"{task}_{optimizer}.yaml"
            write_whole(path, lambda file, text=text: file.write(text))  # type: ignore[misc]
            print(path)
