"""How a search draws its trials: one random stream for each search, and one of it for each trial.

A trial's stream is spawned from the search's seed, its replicate and its own number (numpy's SeedSequence), and from
the search's name. So a search that goes on draws what it would have drawn unbroken, and no two searches share a draw:
neither two optimizers' nor two replicates'.
"""

from __future__ import annotations

import numpy as np
import optuna


def stream(name: str, search_seed: int, replicate: int, *spawned: int) -> int:
    """A seed of 32 bits for a search, or for what is spawned from it under a number."""
    entropy = [search_seed, replicate, int.from_bytes(name.encode(), "little")]
    return int(np.random.SeedSequence(entropy, spawn_key=spawned).generate_state(1)[0])


def make_sampler(
    kind: str, name: str, search_seed: int, replicate: int, trial: int, startup_trials: int
) -> optuna.samplers.BaseSampler:
    """The sampler of the trial with this number."""
    seed = stream(name, search_seed, replicate, trial)
    if kind == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=startup_trials, constant_liar=True, seed=seed)
    if kind == "quasi":  # one scrambled sequence for the whole search: its place is in the journal
        return optuna.samplers.QMCSampler(
            scramble=True,
            seed=stream(name, search_seed, replicate),
            independent_sampler=optuna.samplers.RandomSampler(seed),
            warn_asynchronous_seeding=False,
            warn_independent_sampling=False,
        )
    return optuna.samplers.RandomSampler(seed)
