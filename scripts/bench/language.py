"""Tokens per second of GPT-2 through the harness against a bare loop. Writes results/bench/lm.json.

Both sides train the same model on the same batches with the same optimizer, as scripts/bench/trainer.py describes.
"""

from __future__ import annotations

import timing
import torch
from torch import Tensor, nn
from torch.nn import functional
from trainer import BAR, compare, report
from vrbench.tasks.language_modeling import LanguageModeling

from vrbench.data.text import pydoc
from vrbench.data.tokenization import BPE
from vrbench.models.gpt2 import GPT2

BATCH, CONTEXT = 16, 64


def next_token_loss(model: nn.Module, batch: Tensor) -> Tensor:
    """The bare loop's loss: nothing but the model and torch's cross-entropy."""
    return functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def main() -> None:
    """Measure, print, write."""
    parser = timing.parser(__doc__, "lm.json", threads=2)
    parser.add_argument("--pairs", type=int, default=15, help="how many pairs of blocks")
    options = timing.parse(parser)

    task = LanguageModeling(
        name="pydoc",
        batch_size=BATCH,
        eval_batch_size=BATCH,
        context=CONTEXT,
        windows="random",
        stride=None,
        data=pydoc(0.1, 0.1),
        tokenizer=BPE(1024),
    )
    figures = compare(
        task,
        lambda: GPT2(task.input_shape, task.output_dim, "tiny", None, None, None, 0.1),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, fused=True),
        {},
        next_token_loss,
        pairs=options.pairs,
    )
    report("GPT-2 tiny, 16 x 64 tokens", "tokens", BATCH * CONTEXT, figures)
    one = timing.figure("trainer, its rate over a bare loop's: GPT-2 tiny", BAR, figures)
    timing.write(options, {"results": {"gpt2 tiny": figures}, "figures": [one]})


if __name__ == "__main__":
    main()
