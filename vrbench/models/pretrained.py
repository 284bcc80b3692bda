"""Fine-tuning: any causal language model of transformers, from a local folder or the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vrbench.models.sequence import context_of


class Pretrained(nn.Module):
    """Tokens int64 (B, T ≤ context) to logits (B, T, vocabulary of the checkpoint); position t sees tokens 0 … t.

    All weights are trained, in float32, with the dropout of the checkpoint's own config. Weights are read from
    safetensors only and no code from the hub is run. `revision` is a commit, branch or tag of a hub's repository (None:
    its newest). Raises FileNotFoundError when the model cannot be had, ValueError when its vocabulary or its longest
    context is too small for the task.

    The host waits for the device once in a forward pass: transformers reads whether several texts are packed into a
    row, which decides the masks of those of its models that need any.
    """

    causal = True

    def __init__(self, input_shape: tuple[int, ...], output_dim: int, path: str | None, revision: str | None) -> None:
        super().__init__()
        context = context_of(input_shape)
        if path is None:
            raise ValueError("path=null: give a folder with a transformers causal model, or a name on the hub")
        place = Path(path).expanduser()
        if path.startswith((".", "/", "~")) and not place.is_dir():
            raise FileNotFoundError(f"path={path}: no such folder; give one with a transformers model, or a hub name")
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()

        try:
            network: Any = AutoModelForCausalLM.from_pretrained(
                str(place) if place.is_dir() else path,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                revision=revision or "main",
            )
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"path={path}: no causal language model can be loaded from there "
                f"({str(error).strip().splitlines()[0]}); give a folder with its files, or go online"
            ) from error
        self.network = network
        vocabulary = network.get_input_embeddings().num_embeddings
        if vocabulary < output_dim:
            raise ValueError(
                f"path={path}: knows {vocabulary} tokens, the task has {output_dim}; give the task the model's own "
                f"tokenizer (task/tokenizer=pretrained)"
            )
        longest = getattr(network.config, "max_position_embeddings", None)
        if longest is not None and context > longest:
            raise ValueError(f"path={path}: reads at most {longest} tokens; set task.context={longest} or less")

    def forward(self, tokens: Tensor) -> Tensor:
        return self.network(input_ids=tokens, use_cache=False).logits
