"""One small part of each kind, as a person would add it to a checkout or to a project: one file and one YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

NAME = "homemade"


@dataclass(frozen=True)
class Homemade:
    """A part: the file that holds it in a checkout, its source, and its YAML, which names the module as `MODULE`."""

    group: str
    file: str
    source: str
    yaml: str

    def write(self, root: Path, file: str, module: str) -> list[Path]:
        """Add it below `root`: its source as `file`, which is imported as `module`; returns what was added."""
        source, config = root / file, root / "conf" / self.group / f"{NAME}.yaml"
        for path, text in ((source, self.source), (config, self.yaml.replace("MODULE", module))):
            assert not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text).lstrip())
        return [source, config]


PARTS = [
    Homemade(
        "optimizer",
        "optimizers/homemade.py",
        '''
        """Gradient descent with heavy-ball momentum."""

        import torch


        class HeavyBall(torch.optim.Optimizer):
            """v ← momentum · v + g, θ ← θ - lr · v."""

            def __init__(self, params, lr: float, momentum: float) -> None:
                super().__init__(params, {"lr": lr, "momentum": momentum})

            @torch.no_grad()
            def step(self, closure=None):
                loss = None
                if closure is not None:
                    with torch.enable_grad():
                        loss = closure()
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                            velocity.mul_(group["momentum"]).add_(p.grad)
                            p.add_(velocity, alpha=-group["lr"])
                return loss
        ''',
        """
        _target_: MODULE.HeavyBall
        _partial_: true
        _convert_: all
        lr: 0.03
        momentum: 0.9
        _search_:
          lr: {low: 1.0e-3, high: 0.1, log: true}
          momentum: [0.0, 0.9]
        """,
    ),
    Homemade(
        "task",
        "tasks/homemade.py",
        '''
        """Linear regression on points that are drawn once."""

        import torch
        from torch.nn.functional import mse_loss


        class Line:
            """The sum of four numbers."""

            metric, direction = "val/loss", "min"
            input_shape, output_dim = (4,), 1

            def __init__(self, name: str, batch_size: int) -> None:
                self.name, self.batch_size = name, batch_size
                self.batches_per_epoch = 64 // batch_size
                self.units_per_batch = {"points": batch_size}
                points = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
                self.points = dict(zip(("train", "val", "test"), points.split((64, 16, 16)), strict=True))

            def to(self, device) -> None:
                self.points = {split: points.to(device) for split, points in self.points.items()}

            def train_batches(self, order, augment, start: int = 0):
                rows = torch.randperm(64, generator=order)
                for number in range(start, self.batches_per_epoch):
                    yield self.points["train"][rows[number * self.batch_size : (number + 1) * self.batch_size]]

            def loss(self, model, batch, generator):
                return mse_loss(model(batch), batch.sum(1, keepdim=True)), {}

            def evaluate(self, model, split):
                return {"loss": float(self.loss(model, self.points[split], None)[0])}

            def probe_batches(self, size, microbatch):
                points = self.points["train"][:size]
                return [(len(part) / len(points), part) for part in points.split(microbatch)]
        ''',
        """
        # @package _global_
        defaults:
          - override /model: mlp

        task:
          _target_: MODULE.Line
          name: homemade
          batch_size: 16

        trainer:
          epochs: 2
        """,
    ),
    Homemade(
        "model",
        "vrbench/models/homemade.py",
        '''
        """A linear model of flattened inputs."""

        import math

        from torch import nn


        class Flat(nn.Module):
            """(B, …) to (B, output_dim)."""

            def __init__(self, input_shape: tuple[int, ...], output_dim: int, bias: bool) -> None:
                super().__init__()
                self.linear = nn.Linear(math.prod(input_shape), output_dim, bias)

            def forward(self, inputs):
                return self.linear(inputs.flatten(1))
        ''',
        """
        _target_: MODULE.Flat
        _partial_: true
        _convert_: all
        bias: true
        """,
    ),
    Homemade(
        "schedule",
        "vrbench/training/homemade.py",
        '''
        """A rate that falls in a straight line."""

        from torch.optim.lr_scheduler import LambdaLR


        def falling(optimizer, total_steps: int, *, last_share: float):
            """From lr to `last_share · lr` at the end of the run."""
            return LambdaLR(optimizer, lambda step: 1 - (1 - last_share) * step / total_steps)
        ''',
        """
        _target_: MODULE.falling
        _partial_: true
        last_share: 0.1
        """,
    ),
    Homemade(
        "probe",
        "vrbench/probes/homemade.py",
        '''
        """The largest weight."""


        class Largest:
            """`homemade/largest` in every logged step."""

            def attach(self, training) -> None:
                self.model = training.model

            def before_step(self, moment) -> None:
                """Nothing to see yet."""

            def after_step(self, moment):
                if not moment.logged:
                    return {}
                return {"homemade/largest": max(float(p.detach().abs().max()) for p in self.model.parameters())}

            def state_dict(self):
                return {}

            def load_state_dict(self, state) -> None:
                """Nothing to take back."""
        ''',
        """
        largest:
          _target_: MODULE.Largest
        """,
    ),
    Homemade(
        "logger",
        "vrbench/loggers/homemade.py",
        '''
        """A text file of steps."""


        class Steps:
            """`steps.txt` in the run's folder: one line a row."""

            def start(self, run, total_steps, rows) -> None:
                self.path = run.directory / "steps.txt"
                self.path.write_text("".join(f"{row['step']}\\n" for row in rows))

            def log(self, row) -> None:
                with open(self.path, "a") as file:
                    file.write(f"{row['step']}\\n")

            def image(self, step, path) -> None:
                """Pictures are no steps."""

            def finish(self, summary) -> None:
                """The file is whole already."""
        ''',
        """
        steps:
          _target_: MODULE.Steps
        """,
    ),
    Homemade(
        "task/tokenizer",
        "vrbench/data/homemade.py",
        '''
        """Bytes as tokens."""

        from vrbench.data.tokenization import Encoded


        class Bytes:
            """One token a byte of UTF-8; 256 ends a document. Its own encoder, as there is nothing to learn."""

            key, vocab_size, separator = "homemade-bytes", 257, 256

            def fit(self, documents):
                return self

            def encode(self, document):
                spelled = document.encode()
                return Encoded([*spelled, self.separator], len(spelled))
        ''',
        """
        _target_: MODULE.Bytes
        """,
    ),
]
