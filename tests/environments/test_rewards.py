"""HyperGrid's rewards: torchgfn is the oracle, a few of its numbers stand in reference/ for where it is absent."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from vrbench.environments.hypergrid import hypergrid
from vrbench.environments.rewards import REWARDS, bitwise_xor, conditional_multiscale, multiplicative_coprime

REFERENCE = json.loads((Path(__file__).parents[1] / "reference/hypergrid_rewards.json").read_text())
"""Reward, size, parameters, rewards and numbers of the modes, as torchgfn 2.4.1 gave them in float64."""

THREE = {"R0": 0.1, "R1": 0.5, "R2": 2.0}
LARGER = [
    *[(reward, *size, THREE) for size in ((1, 1000), (2, 64), (4, 8), (3, 11)) for reward in list(REWARDS)[:6]],
    ("original", 2, 41, {"R0": 0.01, "R1": 0.3, "R2": 1.7}),
    ("cosine", 3, 21, {"R0": 0.2, "R1": 1.1, "mode_gamma": 0.5}),
    ("sparse", 5, 6, {}),
    ("deceptive", 2, 41, {"R0": 0.003, "R1": 0.2, "R2": 1.3}),
    (
        "bitwise_xor", 4, 8,
        {"R0": 0.3, "tier_weights": [0.7, 2.1], "bits_per_tier": [[1, 2], [0, 3]], "dims_constrained": [0, 2]},
    ),
    (
        "multiplicative_coprime", 3, 16,
        {"R0": 0.1, "exponent_caps": [4, 1, 0], "active_dims": [2, 0], "coprime_pairs": [[0, 1], [1, 9]]},
    ),
    ("multiplicative_coprime", 2, 64, {"R0": 0.1, "primes": [2, 3, 7], "target_lcms": [None, 42, 6]}),
    ("conditional_multiscale", 2, 64, {"R0": 0.1}),
    ("conditional_multiscale", 3, 27, {"R0": 0.1, "base": 3, "filter_width": 2, "seed": 7, "active_dims": [0, 2]}),
    ("conditional_multiscale", 4, 16, {"R0": 0.1, "tier_weights": [0.3, 2.2], "cross_dim_mods": [2, None]}),
]  # fmt: skip


def torchgfns(reward: str, ndim: int, height: int, params: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Reward and mode of every cell, in the default dtype."""
    pytest.importorskip("gfn", reason="needs torchgfn, which make test installs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit, from its imports
        from gfn.gym import HyperGrid
    logging.getLogger("gfn.gym.hypergrid").setLevel(logging.ERROR)
    environment = HyperGrid(ndim, height, reward, dict(params), validate_modes=False)
    cells = torch.cartesian_prod(*[torch.arange(height)] * ndim).reshape(-1, ndim)
    states = environment.states_from_tensor(cells)
    return environment.reward(states), environment.mode_mask(states)


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request: pytest.FixtureRequest) -> Any:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: f"{case['reward']}-{case['ndim']}-{case['height']}")
def test_reference_numbers(case: dict[str, Any]) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        grid = hypergrid(case["ndim"], case["height"], case["reward"], case["params"])
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(grid.rewards, torch.tensor(case["rewards"], dtype=torch.float64), rtol=1e-12, atol=0)
    assert grid.modes.nonzero().flatten().tolist() == case["modes"]


def test_every_reward_has_reference_numbers() -> None:
    assert {case["reward"] for case in REFERENCE} == set(REWARDS)
    assert all(any(case["modes"] for case in REFERENCE if case["reward"] == reward) for reward in REWARDS)


def test_every_cell_is_torchgfns(dtype: torch.dtype) -> None:
    """Bit for bit in float32, which runs have, and in float64."""
    small = [(case["reward"], case["ndim"], case["height"], case["params"]) for case in REFERENCE]
    for reward, ndim, height, params in [*small, *LARGER]:
        values, modes = torchgfns(reward, ndim, height, params)
        grid = hypergrid(ndim, height, reward, params)
        assert values.dtype == dtype
        assert torch.equal(grid.rewards, values.double()), (reward, ndim, height, params)
        assert torch.equal(grid.modes, modes), (reward, ndim, height, params)


def test_parity_checks_are_torchgfns() -> None:
    """torchgfn takes them as tensors alone, which no YAML has."""
    lists = [{"A": [[1, 1, 0], [0, 1, 1]], "c": [0, 1]}, None]
    tensors = [{name: torch.tensor(values) for name, values in lists[0].items()}, None]  # type: ignore[union-attr]
    params = {"R0": 0.1, "tier_weights": [1.0, 2.0], "bits_per_tier": [[0, 0], [1, 1]]}
    values, modes = torchgfns("bitwise_xor", 3, 4, params | {"parity_checks": tensors})
    grid = hypergrid(3, 4, "bitwise_xor", params | {"parity_checks": lists})
    assert 0 < int(modes.sum()) < 16
    assert torch.equal(grid.rewards, values.double())
    assert torch.equal(grid.modes, modes)


def test_tiers_by_hand() -> None:
    x = torch.tensor([[3, 5], [3, 6], [6, 10], [0, 0], [1, 1], [4, 9]])
    # Bits of 3, 5: even in plane 0 (1+1), odd in plane 1 (1+0); 3, 6: odd in plane 0; 6, 10: even in 0 and 1.
    rewards, mode = bitwise_xor(x, 16, 0.5, [1.0, 10.0], bits_per_tier=[(0, 0), (0, 1)])
    assert rewards.tolist() == [1.5, 0.5, 11.5, 11.5, 11.5, 0.5]
    assert mode == 11.5
    # 6 and 10 share 2; 0 has no factors; the least common multiple of 4 and 9 is 36.
    rewards, _ = multiplicative_coprime(
        x, 16, 0.5, [1.0, 10.0], coprime_pairs=[(0, 1)], exponent_caps=[1, 2], target_lcms=[None, 36]
    )
    assert rewards.tolist() == [1.5, 0.5, 0.5, 0.5, 1.5, 0.5]
    rewards, _ = multiplicative_coprime(x, 16, 0.5, [10.0], coprime_pairs=[(0, 1)], target_lcms=[36])
    assert rewards.tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 10.5]
    # Base 4, lowest digits below 2: of (4, 9) they are 0 and 1. One tier: a quarter of the cells, and yet the mode.
    rewards, mode = conditional_multiscale(x, 16, 0.5, [10.0])
    assert rewards.tolist() == [0.5, 0.5, 0.5, 10.5, 10.5, 10.5]
    assert mode == 10.5


@pytest.mark.parametrize(
    ("reward", "params", "message"),
    [
        ("original", {"R3": 1.0}, "reward_params.R3=1.0: no such parameter; reward=original takes R0, R1, R2"),
        ("sparse", {"R3": 1.0}, "reward_params.R3=1.0: no such parameter; reward=sparse has none"),
        ("original", {"R0": None}, "reward=original does not take them"),
        ("bitwise_xor", {"tier_weights": []}, "tier_weights=.*: must have one tier or more"),
        ("bitwise_xor", {"tier_weights": 3}, "reward=bitwise_xor does not take them"),
        ("bitwise_xor", {"bits_per_tier": [[0, 1]]}, r"bits_per_tier=\[\[0, 1\]\]: must have one for each of 3 tiers"),
        ("bitwise_xor", {"parity_checks": [{"A": [[1, 1]]}, None, None]}, "a tier has A and c, or is null"),
        ("bitwise_xor", {"dims_constrained": [2]}, r"dims_constrained=\[2\]: must be one or more of 0 … 1"),
        ("multiplicative_coprime", {"primes": [4]}, r"primes=\[4\]: must be prime numbers"),
        ("multiplicative_coprime", {"primes": [2, 2]}, r"primes=\[2, 2\]: must be prime numbers, each once"),
        ("multiplicative_coprime", {"exponent_caps": [1]}, r"exponent_caps=\[1\]: must have one for each of 3 tiers"),
        ("multiplicative_coprime", {"active_dims": []}, r"active_dims=\[\]: must be one or more of"),
        ("multiplicative_coprime", {"coprime_pairs": [[0, -3]]}, "does not take them"),
        ("conditional_multiscale", {}, "height=16 has fewer digits in base 4"),
        ("conditional_multiscale", {"base": 3}, "base=3: must be 2 or more, and height=16 a power of it"),
        ("conditional_multiscale", {"base": 1}, "base=1: must be 2 or more"),
        ("conditional_multiscale", {"base": 2, "filter_width": 3}, "filter_width=3: must be between 1 and 2"),
        ("conditional_multiscale", {"base": 2, "cross_dim_mods": [2, 2, 2]}, "must be 2 or more and divide"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(reward: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        hypergrid(2, 16, reward, {"R0": 0.1, **params})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reward", list(REWARDS)[:6])
def test_the_yamls_own_parameters_do_for_every_reward(reward: str) -> None:
    assert hypergrid(2, 8, reward, THREE).log_z > 0
