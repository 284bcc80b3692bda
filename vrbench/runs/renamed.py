"""Names of parts that have moved, and where they are: configs and records of before name the old ones."""

from __future__ import annotations

from pathlib import Path

from vrbench.runs.source import find_module

RENAMED = {
    "optimizers.muon.muon": "vrbench.optimizers.muon.muon",
    "optimizers.vradam.VRAdam": "vrbench.optimizers.vradam.VRAdam",
    "optimizers.vrlion.VRLion": "vrbench.optimizers.vrlion.VRLion",
    "optimizers.vrsgd.VRSGD": "vrbench.optimizers.vrsgd.VRSGD",
    "tasks.diffusion.Diffusion": "vrbench.tasks.diffusion.Diffusion",
    "tasks.diffusion_process.DiffusionProcess": "vrbench.objectives.diffusion_process.DiffusionProcess",
    "tasks.diffusion_process.Sampler": "vrbench.objectives.diffusion_process.Sampler",
    "tasks.gridworld.GridWorldFlow": "vrbench.tasks.gridworld.GridWorldFlow",
    "tasks.hypergrid.HyperGrid": "vrbench.tasks.hypergrid.HyperGrid",
    "tasks.image_classification.ImageClassification": "vrbench.tasks.image_classification.ImageClassification",
    "tasks.image_quality.ImageQuality": "vrbench.metrics.image_quality.ImageQuality",
    "tasks.language_modeling.LanguageModeling": "vrbench.tasks.language_modeling.LanguageModeling",
    "tasks.question_answering.QuestionAnswering": "vrbench.tasks.question_answering.QuestionAnswering",
    "vrbench.loggers.Console": "vrbench.loggers.console.Console",
    "vrbench.loggers.WandB": "vrbench.loggers.wandb.WandB",
    "vrbench.probes.OptimProbe": "vrbench.probes.optim.OptimProbe",
    "vrbench.schedules.constant": "vrbench.training.schedules.constant",
    "vrbench.schedules.warmup_cosine": "vrbench.training.schedules.warmup_cosine",
    "vrbench.stability.EdgeOfStability": "vrbench.probes.edge_of_stability.EdgeOfStability",
}
"""Old name → new name of everything that a `_target_` of conf/ has named."""

_CHECKOUT = Path(__file__).resolve().parents[2]
_OURS = ("optimizers", "tasks")
"""Folders of a checkout that Python also finds by these names, where its folder is on the path."""


def today(target: str) -> str:
    """The present name of a part that is named by its old one; any other name as it is."""
    return RENAMED.get(target, target)


def new_name(target: str) -> str | None:
    """What a config has to name in place of this target; None where the target is right, or is not ours.

    A module of the old name in the user's own project is the user's, whatever it is called. In a checkout of vrbench
    the names `optimizers` and `tasks` may lead to its own folders: these count as ours, renamed or new.
    """
    top = target.split(".")[0]
    package = find_module(target.rpartition(".")[0]) if top in _OURS else None
    if package is not None and package.file.resolve().is_relative_to(_CHECKOUT / top):
        return RENAMED.get(target, f"vrbench.{target}")
    return RENAMED.get(target) if package is None else None
