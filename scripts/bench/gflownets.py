"""How fast the GFlowNet tasks are, side by side in one process: medians of interleaved rounds, ratios within a round.

    python scripts/bench/gflownets.py [--rounds 15] [--threads 1] [--clock wall|cpu]

The cpu clock counts this process's own time, for a machine that is busy with something else.

Measures the HyperGrid training step against torchgfn's (sampling, loss, backward and Adam on the same grid, batch and
network; no progress bar, no checks, no clipping on either side), the GridWorld environment against the plain one of the
tests under a uniform policy, and the environment's share of a GridWorld training step. Writes
results/bench/gflownets.json.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import timing

sys.path.insert(0, str(timing.ROOT / "tests"))

REWARD = {"R0": 0.1, "R1": 0.5, "R2": 2.0}


def compare(sides: dict[str, Callable[[], Any]], calls: int, rounds: int, clock: str) -> dict[str, Any]:
    """Median calls a second of two sides, and how many times faster the first is; a round has `calls` of it."""
    first, second = sides
    taken = timing.in_turns(sides, rounds, calls={first: calls}, clock=clock)
    rates = {f"{side}_per_s": 1 / statistics.median(taken[side]) for side in sides}
    return {**rates, **timing.ratio(taken[second], taken[first])}


# ---- HyperGrid ------------------------------------------------------------------------------------------------------


def vrbench_step(loss: str, height: int, batch_size: int) -> Callable[[], None]:
    import torch
    from vrbench.tasks.hypergrid import HyperGrid

    from vrbench.models.gflownet_mlp import GFlowNetMLP

    task = HyperGrid(
        name="hypergrid", ndim=2, height=height, reward="original", reward_params=REWARD, loss=loss, backward="learned",
        decay=0.9, reward_weight=1.0, epsilon=0.0, log_z_lr=0.1, batch_size=batch_size, batches_per_epoch=100,
        exact_states=200_000, eval_walks=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GFlowNetMLP(
        task.input_shape, task.output_dim, hidden=256, layers=2, activation="relu", tabular=False, log_z=True
    )
    optimizer = torch.optim.Adam(task.param_groups(model), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    batch = next(task.train_batches(generator, generator))

    def step() -> None:
        optimizer.zero_grad()
        task.loss(model, batch, generator)[0].backward()
        optimizer.step()

    return step


def torchgfn_step(loss: str, height: int, batch_size: int) -> Callable[[], None]:
    """The loop of torchgfn's HyperGrid training scripts, with its containers, sampler and losses."""
    import torch
    from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
    from gfn.gflownet import DBGFlowNet, FMGFlowNet, SubTBGFlowNet, TBGFlowNet
    from gfn.gym import HyperGrid
    from gfn.preprocessors import KHotPreprocessor
    from gfn.utils.modules import MLP

    environment = HyperGrid(2, height, "original", REWARD)
    khot = KHotPreprocessor(height, 2)
    torch.manual_seed(0)
    trunk = MLP(khot.output_dim, environment.n_actions)
    forward = DiscretePolicyEstimator(trunk, environment.n_actions, preprocessor=khot)
    backward = DiscretePolicyEstimator(
        MLP(khot.output_dim, environment.n_actions - 1, trunk=trunk.trunk),
        environment.n_actions, preprocessor=khot, is_backward=True,
    )  # fmt: skip
    flow = ScalarEstimator(MLP(khot.output_dim, 1, trunk=trunk.trunk), preprocessor=khot)
    network = {
        "flow_matching": lambda: FMGFlowNet(forward),
        "trajectory_balance": lambda: TBGFlowNet(forward, backward),
        "detailed_balance": lambda: DBGFlowNet(forward, backward, flow),
        "sub_trajectory_balance": lambda: SubTBGFlowNet(forward, backward, flow),
    }[loss]()
    rest = [parameter for name, parameter in network.named_parameters() if name != "logZ"]
    optimizer = torch.optim.Adam(rest, lr=1e-3)
    if hasattr(network, "logZ"):
        optimizer.add_param_group({"params": [network.logZ], "lr": 0.1})

    def step() -> None:
        trajectories = network.sample_trajectories(environment, n=batch_size, save_logprobs=loss != "flow_matching")
        optimizer.zero_grad()
        network.loss_from_trajectories(environment, trajectories, recalculate_all_logprobs=False).backward()
        optimizer.step()

    return step


def bench_hypergrid(rounds: int, clock: str) -> list[dict[str, Any]]:
    """A row for every loss on a small and a large grid."""
    rows = []
    print("HyperGrid, two dimensions, MLP 256-256, Adam: training steps a second")
    print(f"{'loss':24}{'height':>7}{'batch':>6}{'vrbench':>10}{'torchgfn':>10}{'ratio':>8}")
    for height, batch_size in ((8, 16), (32, 64)):
        for loss in ("flow_matching", "trajectory_balance", "detailed_balance", "sub_trajectory_balance"):
            make = {"vrbench": vrbench_step, "torchgfn": torchgfn_step}
            steps = {side: step(loss, height, batch_size) for side, step in make.items()}
            row = {"loss": loss, "height": height, "batch": batch_size, **compare(steps, 3, rounds, clock)}
            rates = f"{row['vrbench_per_s']:10.1f}{row['torchgfn_per_s']:10.1f}"
            print(f"{loss:24}{height:7}{batch_size:6}{rates}{row['ratio']:8.1f}", flush=True)
            rows.append(row)
    return rows


# ---- GridWorld ------------------------------------------------------------------------------------------------------


def bench_environment(rounds: int, clock: str) -> list[dict[str, Any]]:
    """A row for a small and a large batch of walks; rates are of walks."""
    import random

    import torch
    from gridworld_reference import PlainGridWorld  # type: ignore[import-not-found]  # in tests

    from vrbench.environments.gridworld import GridWorld, RewardWeights

    world, plain = GridWorld(8, 64, RewardWeights()), PlainGridWorld(8, 64, 10.0, 5.0, 3.0, 4.0)
    generator, chance = torch.Generator().manual_seed(0), random.Random(0)

    def fast(count: int) -> None:
        world.rewards(world.visits(world.random_walks(count, generator)))

    def slow(count: int) -> None:
        for _ in range(count):
            plain.reset()
            while not plain.done:
                plain.step(chance.randrange(5))
            plain.reward()

    print("\nGridWorld 8×8, uniform policy: walks with their rewards a second")
    print(f"{'batch':>6}{'vrbench':>12}{'plain':>10}{'ratio':>8}")
    rows = []
    for count in (64, 1024):
        found = compare({"vrbench": partial(fast, count), "plain": partial(slow, count)}, 20, rounds, clock)
        walks = {side: count * found[side] for side in ("vrbench_per_s", "plain_per_s")}
        row = {"batch": count, **found, **walks}
        print(f"{count:6}{row['vrbench_per_s']:12.0f}{row['plain_per_s']:10.0f}{row['ratio']:8.1f}", flush=True)
        rows.append(row)
    return rows


class Stopwatch:
    """Seconds spent in the environment: in its methods, less the time that they spend in the policy."""

    def __init__(self, task: Any, clock: str) -> None:
        self.total = 0.0
        self._clock = timing.CLOCKS[clock]
        self._inside, self._since = False, 0.0
        for owner, name in [
            *((task.world, name) for name in ("visits", "history", "observe", "rewards", "allowed", "arrivals")),
            (task.world, "policy_walks"),
            (task, "visited"),
        ]:
            setattr(owner, name, self._timed(getattr(owner, name), pause=name == "policy_walks"))

    def _timed(self, method: Callable[..., Any], pause: bool) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            if pause:
                policy = arguments[0]
                arguments = (lambda *state: self._run(policy, state, inside=False), *arguments[1:])
            return self._run(method, arguments, inside=True)

        return timed

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...], inside: bool) -> Any:
        """Call the function with the watch running or halted, and put it back as it was."""
        before, now = self._inside, self._clock()
        self.total += before * (now - self._since if before else 0.0)
        self._inside, self._since = inside, now
        try:
            return function(*arguments)
        finally:
            now = self._clock()
            self.total += inside * (now - self._since)
            self._inside, self._since = before, now


def bench_share(rounds: int, clock: str) -> list[dict[str, Any]]:
    """A row with and one without a mask of invalid moves."""
    import torch
    from vrbench.tasks.gridworld import GridWorldFlow

    from vrbench.models.gridworld_conv import GridWorldConv

    print("\nGridWorld 8×8, batch 64, the paper's network, Adam: the environment's share of a training step")
    rows = []
    for mask_invalid in (False, True):
        task = GridWorldFlow(
            name="gridworld", size=8, max_moves=64, reward_temperature=1.0, mask_invalid=mask_invalid, flow_weight=1.0,
            reward_weights={"lines": 10.0, "coverage": 5.0, "novelty": 3.0, "symmetry": 4.0}, reward_weight=1.0,
            entropy_weight=0.01, batch_size=64, batches_per_epoch=10, eval_walks=64,
        )  # fmt: skip
        torch.manual_seed(0)
        model = GridWorldConv(task.input_shape, task.output_dim, channels=[32, 64, 128], hidden=256)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.0)  # the policy stays at its start
        generator = torch.Generator().manual_seed(0)
        batch = next(task.train_batches(generator, generator))
        watch = Stopwatch(task, clock)

        def step() -> None:
            optimizer.zero_grad()  # noqa: B023
            task.loss(model, batch, generator)[0].backward()  # noqa: B023
            optimizer.step()  # noqa: B023

        step()
        watch.total = 0.0
        whole = sum(timing.timed(step, clock)[1] for _ in range(rounds))
        row = {"mask_invalid": mask_invalid, "share": watch.total / whole, "step_ms": 1e3 * whole / rounds}
        print(f"mask_invalid={mask_invalid}: {row['share']:.1%} of {row['step_ms']:.0f} ms", flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = timing.parser(__doc__, "gflownets.json", threads=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=list(timing.CLOCKS), default="wall")
    options = timing.parse(parser)
    how = {"rounds": options.rounds, "clock": options.clock}
    results = {
        "hypergrid": bench_hypergrid(**how),
        "gridworld": bench_environment(**how),
        "environment_share": bench_share(**how),
    }
    timing.write(options, {**how, **results})


if __name__ == "__main__":
    main()
