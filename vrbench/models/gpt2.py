"""GPT-2 from scratch: transformers' GPT2LMHeadModel, built from a config."""

from __future__ import annotations

from torch import Tensor, nn

from vrbench.models.sequence import check_heads, context_of

SIZES = {
    "tiny": (2, 64, 2),
    "mini": (4, 256, 4),
    "small": (6, 512, 8),
    "124M": (12, 768, 12),
}
"""layers, width, heads. 124M is the GPT-2 of the paper's Table 2 (vocabulary 50,257, context 1024)."""

UNMASKED = "sdpa_unmasked"
"""transformers' `sdpa` under a name that it makes no masks for. torch's kernel is causal without one; to learn whether
one is needed, transformers would read in each forward pass whether several texts are packed into a row, and wait."""


class GPT2(nn.Module):
    """Tokens int64 (B, T ≤ context) to logits (B, T, vocabulary); position t sees tokens 0 … t.

    `size` names layers, width and heads (SIZES); `layers`, `width`, `heads` overrule it one by one. `dropout` is that
    of embeddings, attention and residuals. Embeddings are tied to the output, as in GPT-2.
    """

    causal = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        size: str,
        layers: int | None,
        width: int | None,
        heads: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        context = context_of(input_shape)
        if size not in SIZES:
            raise ValueError(f"size={size}: must be one of {', '.join(SIZES)}")
        chosen = [new if new is not None else old for new, old in zip((layers, width, heads), SIZES[size], strict=True)]
        check_heads(chosen[1], chosen[2])
        from transformers import AttentionInterface, GPT2Config, GPT2LMHeadModel
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        AttentionInterface.register(UNMASKED, sdpa_attention_forward)

        config = GPT2Config(
            vocab_size=output_dim,
            n_positions=context,
            n_layer=chosen[0],
            n_embd=chosen[1],
            n_head=chosen[2],
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=None,
            eos_token_id=None,
            use_cache=False,
        )
        self.network = GPT2LMHeadModel(config)
        self.network.set_attn_implementation(UNMASKED)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.network(input_ids=tokens, use_cache=False).logits
