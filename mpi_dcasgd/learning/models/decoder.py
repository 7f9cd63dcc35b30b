"""Layers of the decoder-only transformer.

Attention is written out, not left to PyTorch's fused kernels, whose gradients are summed in
another order each time on a GPU: no run could be replayed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_STD = 0.02


class Decoder(nn.Module):
    """Scores of the next token at every place of a window, from the tokens up to there.

    Args:
        vocabulary: Number of different tokens.
        window: Greatest number of tokens in a sample.
        width: Numbers that stand for a token in the layers.
        depth: Blocks.
        heads: Of attention, in each block.
        dropout: Dropped fraction of embeddings, attention weights and what a block adds.
        tied: The embedding of the tokens is the weight of the last layer as well.

    Example:
        >>> Decoder(5, 8, width=4, depth=1, heads=2)(torch.zeros(3, 6, dtype=torch.int64)).shape
        torch.Size([3, 6, 5])
    """

    def __init__(
        self,
        vocabulary: int,
        window: int,
        *,
        width: int,
        depth: int,
        heads: int,
        dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.empty(window, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, vocabulary, bias=False)
        self._start(depth)
        if tied:
            self.scores.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores.

        Args:
            tokens: (n, t) int64 with t up to the window.

        Returns:
            (n, t, vocabulary).
        """
        x = self.dropout(self.tokens(tokens) + self.positions[: tokens.shape[1]])
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.scores(self.norm(x))
        return scores

    def _start(self, depth: int) -> None:
        """Draw the first weights as GPT-2's: what the blocks add up to does not grow with depth."""
        nn.init.normal_(self.positions, std=_STD)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                adds = name.endswith(("attention.out", "out_of_hidden"))
                nn.init.normal_(module.weight, std=_STD / math.sqrt(2 * depth) if adds else _STD)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class Block(nn.Module):
    """Attention, then two layers for each token by itself, each added to what was there."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_before_attention = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.norm_before_hidden = nn.LayerNorm(width)
        self.into_hidden = nn.Linear(width, 4 * width)
        self.out_of_hidden = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return what comes in with what is added to it, (n, t, width)."""
        x = x + self.dropout(self.attention(self.norm_before_attention(x)))
        hidden = nn.functional.gelu(self.into_hidden(self.norm_before_hidden(x)))
        added: Tensor = self.dropout(self.out_of_hidden(hidden))
        return x + added


class CausalAttention(nn.Module):
    """Attention of each token to itself and to those before it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted means of the values, (n, t, width)."""
        n, t, width = x.shape
        parts = self.into(x).view(n, t, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        likeness = queries @ keys.transpose(-1, -2) / math.sqrt(width // self.heads)
        later = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        weights = self.dropout(likeness.masked_fill(later, -math.inf).softmax(-1))
        means = (weights @ values).transpose(1, 2).reshape(n, t, width)
        result: Tensor = self.out(means)
        return result
