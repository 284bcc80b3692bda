"""What VRAdam adds to a whole training step, and evaluation against a bare loop. Writes results/bench/steps.json.

    whole       steps of a bare loop with VRAdam over those with AdamW, blocks in turns: DeeperCNN at batch 128, and a
                transformer of 3.7 million parameters at 8 x 128 tokens
    evaluation  a bare no-grad loop over the same batches, over the task's evaluation; and the speed at other
                `eval_batch_size`s over that at 512 images, 32 windows

A ratio is the median over rounds in which the sides take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import timing
import torch
from language import next_token_loss
from torch import nn
from trainer import Contest, cross_entropy, in_blocks, random_images
from vrbench.optimizers import VRAdam
from vrbench.tasks.language_modeling import LanguageModeling

from vrbench.contracts import Task
from vrbench.data.text import Corpus
from vrbench.data.tokenization import Char

WHOLE_BAR = {"at_most": 1.01}
EVALUATION_BAR = {"at_least": 0.95}
WORDS = "".join(map(chr, range(0x4E00, 0x4E00 + 1022)))
"""As many characters as `bpe` has tokens."""


def tokens(batch_size: int, context: int) -> LanguageModeling:
    """A language-model task on made-up text: the speed is that of real text."""
    drawn = torch.randint(len(WORDS), (200_000,), generator=torch.Generator().manual_seed(0)).tolist()
    text = "".join(WORDS[number] for number in drawn)
    return LanguageModeling(
        name="made up",
        batch_size=batch_size,
        eval_batch_size=32,
        context=context,
        windows="random",
        stride=None,
        data=Corpus([WORDS + text], [text[:20_000]], [text[:20_000]]),
        tokenizer=Char(),
    )


def cnn(task: Task) -> nn.Module:
    from vrbench.models.deeper_cnn import DeeperCNN

    return DeeperCNN(task.input_shape, task.output_dim, channels=[64, 128, 256], hidden=512)


def transformer(task: Task) -> nn.Module:
    from vrbench.models.transformer_lm import TransformerLM

    return TransformerLM(
        task.input_shape,
        task.output_dim,
        layers=4,
        width=256,
        heads=4,
        feed_forward=1024,
        dropout=0.1,
        tie_embeddings=True,
    )


def adamw(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-4, fused=True)


def vradam(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    return VRAdam(parameters, lr=1e-4, beta3=0.1, fused=True)


def whole(options: argparse.Namespace) -> Iterator[timing.Figure]:
    """VRAdam's whole steps over AdamW's."""
    images, text = random_images(4096, 128), tokens(8, 128)
    cases: dict[str, tuple[Task, Callable[[], nn.Module], Any]] = {
        "DeeperCNN, batch 128": (images, partial(cnn, images), cross_entropy),
        "transformer, 8 x 128 tokens": (text, partial(transformer, text), next_token_loss),
    }
    for name, (task, make, loss) in cases.items():
        runs = {
            optimizer.__name__: Contest(task, make, optimizer, {}, loss, torch.device("cpu")).bare()
            for optimizer in (adamw, vradam)
        }
        found = in_blocks(runs, "adamw", "vradam", options.pairs)
        yield timing.figure(f"whole step, VRAdam over AdamW: {name}", WHOLE_BAR, found)


def evaluation(options: argparse.Namespace) -> Iterator[timing.Figure]:
    """The task's evaluation of its validation split against a bare loop, and against itself at other batch sizes."""
    images: Any = random_images(1024, 1024)
    text = tokens(8, 128)
    cases: dict[str, tuple[Any, nn.Module, Callable[[nn.Module], float], tuple[int, ...]]] = {
        "DeeperCNN": (images, cnn(images), partial(bare_images, 1024, images.eval_batch_size), (64, 128, 256, 1024)),
        "transformer": (text, transformer(text), partial(bare_tokens, text), (8, 16, 64)),
    }
    for name, (task, model, bare, sizes) in cases.items():
        model.eval()
        usual = task.eval_batch_size

        def ours(task: Any = task, model: nn.Module = model, size: int = usual) -> None:
            task.eval_batch_size = size
            with torch.no_grad():
                task.evaluate(model, "val")

        sides: dict[str, Callable[[], object]] = {"ours": ours, "bare": partial(bare, model)}
        sides |= {str(size): partial(ours, size=size) for size in sizes}
        taken = timing.in_turns(sides, options.rounds, swap=True)
        yield timing.figure(
            f"evaluation, its rate over a bare loop's: {name}",
            EVALUATION_BAR,
            timing.ratio(taken["bare"], taken["ours"]),
        )
        for size in sizes:
            found = timing.ratio(taken["ours"], taken[str(size)])
            yield timing.figure(f"evaluation, batches of {size} over {usual}: {name}", None, found)


def bare_images(count: int, batch_size: int, model: nn.Module) -> float:
    """Loss and accuracy of so many images by a plain loop."""
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,))
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261]))
    total, right = 0.0, 0
    with torch.no_grad():
        for begin in range(0, count, batch_size):
            some = slice(begin, begin + batch_size)
            logits = model((images[some].permute(0, 3, 1, 2) / 255 - mean) / std)
            total += float(nn.functional.cross_entropy(logits, labels[some], reduction="sum"))
            right += int((logits.argmax(1) == labels[some]).sum())
    return total / count + right / count


def bare_tokens(task: Any, model: nn.Module) -> float:
    """Loss and accuracy of the validation tokens by a plain loop over windows that lie side by side."""
    stream, total, right = task.streams["val"].long(), 0.0, 0
    begins = torch.arange(0, len(stream) - task.context, task.context)
    with torch.no_grad():
        for some in begins.split(task.eval_batch_size):
            batch = stream[some[:, None] + torch.arange(task.context + 1)]
            logits = model(batch[:, :-1])
            total += float(nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))
            right += int((logits.argmax(-1) == batch[:, 1:]).sum())
    return total / len(stream) + right / len(stream)


def main() -> None:
    """Measure, print, write."""
    parser = timing.parser(__doc__, "steps.json", threads=2)
    parser.add_argument("--pairs", type=int, default=15, help="how many pairs of blocks of about two seconds")
    parser.add_argument("--rounds", type=int, default=15, help="evaluations of each side")
    options = timing.parse(parser)
    figures = []
    print(timing.HEADING)
    for measure in (whole, evaluation):
        for one in measure(options):
            figures.append(one)
            print(timing.line(one), flush=True)
    timing.write(options, {"figures": figures})


if __name__ == "__main__":
    main()
