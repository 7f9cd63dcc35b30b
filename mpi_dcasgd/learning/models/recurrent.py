"""Layers of the LSTM for windows of tokens."""

from __future__ import annotations

from torch import Tensor, nn


class Recurrent(nn.Module):
    """Scores of the next token at every place of a window, from the tokens up to there.

    Args:
        vocabulary: Number of different tokens.
        embedding: Numbers that stand for a token.
        width: Units of a layer.
        depth: Layers.
        dropout: Dropped fraction of what each layer puts out.

    Example:
        >>> import torch
        >>> model = Recurrent(5, embedding=3, width=4, depth=2)
        >>> model(torch.zeros(3, 6, dtype=torch.int64)).shape
        torch.Size([3, 6, 5])
    """

    def __init__(
        self, vocabulary: int, *, embedding: int, width: int, depth: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, embedding)
        between = dropout if depth > 1 else 0.0  # nn.LSTM warns of dropout after its only layer
        self.layers = nn.LSTM(embedding, width, depth, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores, (n, t, vocabulary).

        Args:
            tokens: (n, t) int64.
        """
        outputs, _ = self.layers(self.tokens(tokens))
        scores: Tensor = self.scores(self.dropout(outputs))
        return scores
