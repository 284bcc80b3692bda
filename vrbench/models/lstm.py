"""LSTM language model."""

from __future__ import annotations

from torch import Tensor, nn

from vrbench.models.sequence import context_of


class LSTM(nn.Module):
    """Tokens int64 (B, T) to logits (B, T, vocabulary) by stacked LSTMs; position t sees tokens 0 … t.

    Each sequence starts from a zero state: no state is carried from batch to batch. Dropout lies on the embeddings,
    between the layers and before the output (arXiv 1409.2329); embeddings may be tied to the output (arXiv 1608.05859).
    """

    causal = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        layers: int,
        width: int,
        dropout: float,
        tie_embeddings: bool,
    ) -> None:
        super().__init__()
        context_of(input_shape)
        self.tokens = nn.Embedding(output_dim, width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.head = nn.Linear(width, output_dim)
        bound = width**-0.5
        nn.init.uniform_(self.tokens.weight, -bound, bound)
        if tie_embeddings:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.lstm(self.dropout(self.tokens(tokens)))
        return self.head(self.dropout(hidden))
