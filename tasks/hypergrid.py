"""A GFlowNet on torchgfn's HyperGrid, with the four balance losses and the exact distance to the target.

A step samples walks from the model's own policy and regresses a balance residual on them. The losses here are
torchgfn's (the tests compare them number for number), laid out on state numbers: on a grid of a few hundred cells the
network is evaluated once for every cell, sampling becomes a table lookup, and all gradients flow through that one
evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from vrbench.contracts import Batch
from vrbench.environments.heatmaps import heatmaps
from vrbench.environments.hypergrid import StateFacts, hypergrid, terminal_distribution, uniform_walks, walk
from vrbench.objectives.balance import OBJECTIVES, Heads, Walks

WHOLE_GRID = 512
"""Up to this many states, the network is evaluated on all of them at each step; beyond, on those that walks visit."""
_PROBE_SEED = 7_001
_EVAL_SEED = 7_002
_CHUNK = 8192


class HyperGrid:
    """Learn to stop in cell x of a grid with probability R(x)/Z, walking there from the corner.

    A training step reads no number back to the host on grids of up to 512 states, but for flow matching, which has to
    know which states were visited. On larger grids the host asks that after each action, and whether any walk goes on.

    Val and test are one and the same exact quantity: there is no data to hold out. Metrics of `evaluate`:

    - `l1`: Σ_x |p(x) − R(x)/Z| over all cells (0 … 2), p the exact distribution of the model's last state by forward
      dynamic programming; on grids above `exact_states` cells p is the histogram of `eval_walks` sampled walks instead.
    - `jensen_shannon`: the divergence between the same two, in nats (0 … log 2).
    - `logz_error`: |log Z of the model − log Σ R|; flow losses say log Z by the flow out of the start.
    - `modes_found` of `modes`, `states_visited`: distinct mode cells, and cells, that training walks stopped in.
    - `loss`: the loss on `eval_walks` walks of the model's policy (at most 1024) without exploration, fixed noise.
    """

    metric = "val/l1"
    direction: Literal["min", "max"] = "min"

    def __init__(
        self,
        name: str,
        ndim: int,
        height: int,
        reward: str,
        reward_params: dict[str, Any],
        loss: str,
        backward: Literal["learned", "uniform"],
        decay: float,
        reward_weight: float,
        epsilon: float,
        log_z_lr: float | None,
        batch_size: int,
        batches_per_epoch: int,
        exact_states: int,
        eval_walks: int,
    ) -> None:
        if loss not in OBJECTIVES:
            raise ValueError(f"loss={loss}: must be one of {', '.join(OBJECTIVES)}")
        if backward not in ("learned", "uniform"):
            raise ValueError(f"backward={backward}: must be learned or uniform")
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon={epsilon}: must be in [0, 1]")
        if not 0 < decay <= 1:
            raise ValueError(f"decay={decay}: must be in (0, 1]")
        if not reward_weight > 0:
            raise ValueError(f"reward_weight={reward_weight}: must be above 0")
        if log_z_lr is not None and not 0 < log_z_lr < float("inf"):
            raise ValueError(f"log_z_lr={log_z_lr}: must be a finite number above 0, or null for the optimizer's lr")
        counts = {"batch_size": batch_size, "batches_per_epoch": batches_per_epoch, "eval_walks": eval_walks}
        for key, value in counts.items():
            if value < 1:
                raise ValueError(f"{key}={value}: must be 1 or more")
        self.name = name
        self.objective = OBJECTIVES[loss]
        self.learned_backward = self.objective.backward and backward == "learned"
        option = self.objective.option
        self._options = {} if option is None else {option: {"decay": decay, "reward_weight": reward_weight}[option]}
        self.epsilon = epsilon
        self.log_z_lr = log_z_lr
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.units_per_batch = {"walks": batch_size}
        self.eval_walks = eval_walks
        self.grid = hypergrid(ndim, height, reward, reward_params)
        self.exact = self.grid.states <= exact_states
        self.visited = torch.zeros(self.grid.states, dtype=torch.bool)
        self.input_shape: tuple[int, ...] = (ndim, height)
        self.output_dim = ndim + 1 + ndim * self.learned_backward + self.objective.state_flow

    # ---- the contract -----------------------------------------------------------------------------------------------

    def to(self, device: torch.device) -> None:
        self.grid = self.grid.to(device)
        self.visited = self.visited.to(device)

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The network, and log Z with a rate of its own (and no weight decay) where the loss learns it.

        `log_z_lr` stands beside the optimizer's `lr` and follows the same schedule. A log Z that the loss does not use
        is frozen.
        """
        log_z = getattr(model, "log_z", None)
        rest = [parameter for parameter in model.parameters() if parameter is not log_z]
        if log_z is None:
            return [{"params": rest}]
        log_z.requires_grad_(self.objective.log_z)
        if not self.objective.log_z:
            return [{"params": rest}]
        if self.log_z_lr is None:
            return [{"params": [*rest, log_z]}]
        return [{"params": rest}, {"params": [log_z], "lr": self.log_z_lr, "weight_decay": 0.0}]

    def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[Batch]:
        """The states that the walks of a step begin in: always the corner."""
        batch = torch.zeros(self.batch_size, dtype=torch.int64, device=self.visited.device)
        for _ in range(start, self.batches_per_epoch):
            yield batch

    def loss(self, model: nn.Module, batch: Batch, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The balance loss on fresh walks of the model's policy, mixed with `epsilon` of the uniform one.

        A batch of `probe_batches` holds walks, and the loss on them is a deterministic function of the parameters.
        Raises ValueError where the model has not the outputs that the loss needs.
        """
        if isinstance(batch, dict):
            walks = Walks(batch["states"].T, batch["actions"].T, batch["mean_length"][0])
            return self._loss_on(walks, self._heads(model, self._needed(walks))), {}
        walks, heads = self._sample(model, len(batch), generator, self.epsilon)
        last = walks.last(self.grid)
        self.visited[last] = True
        value = self._loss_on(walks, heads)
        return value, {
            "length": walks.lengths(self.grid).float().mean(),
            "log_reward": self.grid.log_rewards[last].mean(),
        }

    def evaluate(self, model: nn.Module, split: Literal["val", "test"]) -> dict[str, float]:
        generator = torch.Generator(self.visited.device).manual_seed(_EVAL_SEED)
        walks, heads = self._sample(model, min(self.eval_walks, 1024), generator, 0.0)
        loss = float(self._loss_on(walks, heads))
        learned = self.distribution(model)
        target = (self.grid.rewards / self.grid.rewards.sum()).cpu()
        middle = (learned + target) / 2
        entropies = torch.special.entr(torch.stack([middle, learned, target])).sum(-1).tolist()
        start = self._heads(model, torch.zeros(1, dtype=torch.int64, device=self.visited.device))
        return {
            "loss": loss,
            "l1": float((learned - target).abs().sum()),
            "jensen_shannon": max(entropies[0] - (entropies[1] + entropies[2]) / 2, 0.0),
            "logz_error": abs(float(start.log_z) - self.grid.log_z),
            "modes": float(self.grid.modes.sum()),
            "modes_found": float((self.grid.modes & self.visited).sum()),
            "states_visited": float(self.visited.sum()),
        }

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, Batch]]:
        """`size` fixed walks of the uniform policy, in chunks; see `loss`."""
        device = self.visited.device
        states, actions = uniform_walks(self.grid, size, torch.Generator().manual_seed(_PROBE_SEED))
        mean = (states != self.grid.sink).sum(0).double().mean().to(device, torch.float32)
        columns = {"states": states.T, "actions": actions.T, "mean_length": mean.expand(size)}
        return [
            (
                len(range(begin, min(begin + microbatch, size))) / size,
                {key: value[begin : begin + microbatch].contiguous() for key, value in columns.items()},
            )
            for begin in range(0, size, microbatch)
        ]

    def render(self, model: nn.Module) -> Tensor:
        """The target (left) and the learned distribution on one scale; more than two dimensions are summed out."""
        target = (self.grid.rewards / self.grid.rewards.sum()).cpu()
        planes = torch.stack([target, self.distribution(model)])
        height = self.grid.height
        return heatmaps(planes.view(2, height, height if self.grid.ndim > 1 else 1, -1).sum(-1))

    def state_dict(self) -> dict[str, Tensor]:
        return {"visited": self.visited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.visited = state["visited"].to(self.visited.device)

    # ---- the parts --------------------------------------------------------------------------------------------------

    def distribution(self, model: nn.Module) -> Tensor:
        """(states,) float64 on the CPU: how often the model's walks stop where, exact or sampled (see the class)."""
        if self.exact:
            everything = torch.arange(self.grid.states, device=self.visited.device)
            parts = [self._heads(model, part).log_pf[:-1].exp() for part in everything.split(_CHUNK)]
            return terminal_distribution(self.grid, torch.cat(parts))
        counts = torch.zeros(self.grid.states, dtype=torch.float64)
        generator = torch.Generator(self.visited.device).manual_seed(_EVAL_SEED)
        for begin in range(0, self.eval_walks, _CHUNK):
            count = min(_CHUNK, self.eval_walks - begin)
            last = self._walk_by_model(model, count, generator, 0.0).last(self.grid)
            counts += torch.bincount(last.cpu(), minlength=self.grid.states)
        return counts / self.eval_walks

    def _loss_on(self, walks: Walks, heads: Heads) -> Tensor:
        return self.objective.function(heads, walks, **self._options)

    def _sample(self, model: nn.Module, count: int, generator: Generator, epsilon: float) -> tuple[Walks, Heads]:
        """Walks of the policy, and the heads of every state that the loss on them looks at."""
        if self.grid.states > WHOLE_GRID:
            walks = self._walk_by_model(model, count, generator, epsilon)
            return walks, self._heads(model, self._needed(walks))
        heads = self._heads(model, torch.arange(self.grid.states, device=self.visited.device))
        uniform = torch.rand(self.grid.longest, count, generator=generator, device=self.visited.device)
        states, actions = walk(self.grid, self._cumulative(heads, epsilon), uniform)
        return Walks(states, actions), heads

    @torch.no_grad()
    def _walk_by_model(self, model: nn.Module, count: int, generator: Generator, epsilon: float) -> Walks:
        """The same as the table walk, with the model asked about the states of each step."""
        grid, device = self.grid, self.visited.device
        offsets = functional.pad(grid.strides, (0, 1))
        state = torch.zeros(count, dtype=torch.int64, device=device)
        states, actions = [state], []
        while bool((state != grid.sink).any()):
            rows, place = torch.unique(state, return_inverse=True)
            cumulative = self._cumulative(self._heads(model, rows[rows != grid.sink]), epsilon)
            draw = torch.rand(count, 1, generator=generator, device=device)
            action = (cumulative[place] <= draw).sum(-1)
            state = torch.where(action == grid.stop, grid.sink, state + offsets[action])
            states.append(state)
            actions.append(action)
        return Walks(torch.stack(states), torch.stack(actions))

    def _cumulative(self, heads: Heads, epsilon: float) -> Tensor:
        """(rows + 1, ndim) running sums over the moves of (1 − ε) P_F + ε · uniform; 0 at the sink.

        A model that has diverged to NaN stops at once: the loss, not an endless walk, is to say so.
        """
        probabilities = heads.log_pf[:-1].detach().exp()
        if epsilon > 0:
            moves = self._facts(heads.states).moves.to(probabilities.dtype)
            probabilities = torch.lerp(probabilities, moves / moves.sum(-1, keepdim=True), epsilon)
        return functional.pad(probabilities[:, :-1].cumsum(-1).nan_to_num(0.0), (0, 0, 0, 1))

    def _facts(self, states: Tensor) -> StateFacts:
        """What the grid says of some states, remembered where it is asked about all of a small grid."""
        whole = len(states) == self.grid.states <= WHOLE_GRID
        return self.grid.facts if whole else self.grid.look_up(states)

    def _needed(self, walks: Walks) -> Tensor:
        """Sorted numbers of the states that a loss on the walks looks at: those visited, and their parents."""
        grid = self.grid
        if grid.states <= WHOLE_GRID:
            return torch.arange(grid.states, device=self.visited.device)
        visited = torch.unique(walks.states)
        visited = visited[visited != grid.sink]
        if self.objective.backward:
            return visited
        parents = torch.where(grid.parents(visited), visited.unsqueeze(-1) - grid.strides, 0)
        return torch.unique(torch.cat([visited, parents.flatten()]))

    def _heads(self, model: nn.Module, states: Tensor) -> Heads:
        """Evaluate the model on (rows,) sorted states and read its columns: P_F or edge flows, P_B, log F."""
        grid, objective = self.grid, self.objective
        facts = self._facts(states)
        output = model(facts.encoded)
        if output.shape != (len(states), self.output_dim):
            raise ValueError(
                f"the loss needs outputs of shape {(len(states), self.output_dim)}, the model gives "
                f"{tuple(output.shape)}; take model=gflownet_mlp"
            )
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        moves, rest = output[:, : grid.ndim + 1], output[:, grid.ndim + 1 :]
        log_edges = moves.masked_fill(~facts.moves, -torch.inf)
        log_pf = functional.pad(log_edges.log_softmax(-1), (0, 0, 0, 1))
        logits = rest[:, : grid.ndim] if self.learned_backward else torch.zeros_like(moves[:, :-1])
        logits = logits.masked_fill(~facts.parents & (states > 0).unsqueeze(-1), -torch.inf)
        log_pb = functional.pad(logits.log_softmax(-1), (0, 1, 0, 1))
        log_flow = functional.pad(rest[:, -1] if objective.state_flow else torch.zeros_like(output[:, 0]), (0, 1))
        return Heads(grid, states, log_pf, log_pb, log_flow, log_edges, self._log_z(model, log_flow, log_edges))

    def _log_z(self, model: nn.Module, log_flow: Tensor, log_edges: Tensor) -> Tensor:
        """log Z as the loss has it: the parameter, or the flow of the first row (the start, where it is among them)."""
        if self.objective.log_z:
            log_z = getattr(model, "log_z", None)
            if log_z is None:
                raise ValueError("the loss needs a model with log_z; take model=gflownet_mlp model.log_z=true")
            return log_z
        return log_flow[0] if self.objective.state_flow else log_edges[0].logsumexp(-1)
