"""The encoder-decoder transformer of the VRAdam paper's language-model runs, with and without its leak."""

from __future__ import annotations

import logging
import math

from torch import Tensor, nn

from vrbench.models.sequence import check_heads, context_of, sinusoidal_positions

log = logging.getLogger(__name__)


class EncoderDecoder(nn.Module):
    """Tokens int64 (B, T ≤ context) to logits (B, T, vocabulary) by torch's nn.Transformer (arXiv 1706.03762).

    Post-norm, sinusoidal positions, one embedding for both sides. Encoder and decoder are given the same tokens. As a
    language model it must not look ahead: encoder, decoder and the attention between them are all masked, and position
    t sees tokens 0 … t. `leak_targets=True` is what the authors' release does: the encoder and the attention to it have
    no mask, so that every position sees the tokens it is to predict, save the last of the sequence. Its loss is then
    no cross-entropy of a language model.
    """

    positions: Tensor
    ahead: Tensor

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        width: int,
        heads: int,
        encoder_layers: int,
        decoder_layers: int,
        feed_forward: int,
        dropout: float,
        leak_targets: bool,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        context = context_of(input_shape)
        self.causal = not leak_targets
        if leak_targets:
            log.warning(
                "model.leak_targets=true: the encoder sees the tokens to predict, as in the VRAdam paper's released "
                "code; losses and perplexities of this run are not those of a language model"
            )
        self.width = width
        self.tokens = nn.Embedding(output_dim, width)
        self.dropout = nn.Dropout(dropout)
        self.transformer = nn.Transformer(
            d_model=width,
            nhead=heads,
            num_encoder_layers=encoder_layers,
            num_decoder_layers=decoder_layers,
            dim_feedforward=feed_forward,
            dropout=dropout,
            batch_first=True,
        )
        self.head = nn.Linear(width, output_dim)
        self.register_buffer("positions", sinusoidal_positions(context, width), persistent=False)
        self.register_buffer("ahead", nn.Transformer.generate_square_subsequent_mask(context), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        ahead = self.ahead[:length, :length]
        encoder_mask = ahead if self.causal else None
        x = self.dropout(self.tokens(tokens) * math.sqrt(self.width) + self.positions[:length])
        hidden = self.transformer(
            x,
            x,
            src_mask=encoder_mask,
            tgt_mask=ahead,
            memory_mask=encoder_mask,
            src_is_causal=self.causal,
            tgt_is_causal=True,
            memory_is_causal=self.causal,
        )
        return self.head(hidden)
