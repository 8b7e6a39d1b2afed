"""The text decoder.

Shapes: B rows, T tokens, D width, H heads, K key and value heads, d head width.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workflow_blocks.moondream2.config import TextConfig
from workflow_blocks.moondream2.layers import LAYER_NORM_EPS, Attention, Linear, Mlp, attend
from workflow_blocks.moondream2.rows import Rows

# The queries, keys and values of tokens (B, T, H + 2 * K, d) to what the queries attend to (B, T, H * d).
Attend = Callable[[Tensor], Tensor]

ROTARY_THETA = 10000.0


class TextBlock(nn.Module):
    """A transformer block whose attention and MLP read the same normed input, in parallel."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(config.dim, config.n_heads, config.n_kv_heads)
        self.mlp = Mlp(config.dim, config.ff_dim, config.dim)

    def forward(self, x: Tensor, rotation: "Rotation", attend: Attend) -> Tensor:
        normed = self.ln(x)
        attended = attend(self.heads(normed, rotation))
        wanted = attended.shape[1]  # all tokens, or the last
        return self.add(x[:, -wanted:], normed[:, -wanted:], attended)

    def heads(self, normed: Tensor, rotation: "Rotation") -> Tensor:
        """Queries, keys and values of `normed` (B, T, D): (B, T, H + 2 * K, d)."""
        return rotate(self.attn.heads(normed), rotation)

    def add(self, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        return x + self.attn.proj(attended) + self.mlp(normed)


class Text(nn.Module):
    """Embeds tokens, runs the decoder and reads the next token's logits."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Parameter(torch.empty(config.vocab_size, config.dim))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.n_layers))
        self.post_ln = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.lm_head = Linear(config.dim, config.vocab_size)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token ids (..., T) to embeddings (..., T, D)."""
        return F.embedding(token_ids, self.wte)

    def read_prefix(self, embeddings: Tensor) -> list[Tensor]:
        """Reads a prefix (B, T, D) in which every token attends to every other.

        Returns:
            Of each layer the queries, keys and values (B, T, H + 2 * K, d).
        """
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)
        rotation = rotation_at(positions, self.config)
        x, kept = embeddings, []
        for block in self.blocks:
            assert isinstance(block, TextBlock)
            normed = block.ln(x)
            heads = block.heads(normed, rotation)
            kept.append(heads)
            # Nothing reads the last layer's output.
            if len(kept) < len(self.blocks):
                x = block.add(x, normed, attend(heads, self.config.n_heads))
        return kept

    def forward(self, embeddings: Tensor, rows: Rows, only_last: bool = False) -> Tensor:
        """Reads the next tokens (B, T, D) of all rows.

        Returns:
            Hidden states before `post_ln`, (B, T, D), or (B, 1, D) of each row's last token.
        """
        rotation = rotation_at(rows.extend(embeddings.shape[1]), self.config)
        x = embeddings
        for layer, block in enumerate(self.blocks):
            # Other tokens' states after the last layer predict what is known.
            is_short = only_last and layer == len(self.blocks) - 1
            x = block(x, rotation, partial(rows.attend, layer, only_last=is_short))
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to next-token logits (..., vocab)."""
        return self.lm_head(self.post_ln(hidden))

    def logits_of(self, hidden: Tensor, token_ids: Sequence[int]) -> Tensor:
        """Hidden states (..., D) to the next-token logits of some tokens (..., N)."""
        ids = torch.tensor(token_ids, device=hidden.device)
        return F.linear(self.post_ln(hidden), self.lm_head.weight[ids], self.lm_head.bias[ids])


class Rotation(NamedTuple):
    """Cosines and sines of the rotary angles, float32, broadcastable to (B, T, H + 2 * K, d / 4)."""

    cos: Tensor
    sin: Tensor


def rotation_at(positions: Tensor, config: TextConfig) -> Rotation:
    """The rotary angles at `positions` ((B, T) or (T,)).

    Half of the values of a query's or key's head are rotated; the heads of values have angles of 0.
    Rotary position embedding: Su et al., 2021, https://arxiv.org/abs/2104.09864.
    """
    angles = positions[..., None, None] * _angles_per_position(config, positions.device)
    return Rotation(torch.cos(angles), torch.sin(angles))


@lru_cache
def _angles_per_position(config: TextConfig, device: torch.device) -> Tensor:
    """(H + 2 * K, d / 4)."""
    rotated = config.head_dim // 2
    exponents = torch.arange(0, rotated, 2, dtype=torch.float32, device=device) / rotated
    turns = torch.ones(config.n_heads + 2 * config.n_kv_heads, 1, device=device)
    turns[-config.n_kv_heads :] = 0
    return turns * ROTARY_THETA**-exponents


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotates the first half of each head (..., d); value i is paired with i + d / 4."""
    quarter = rotation.cos.shape[-1]
    first, second = heads[..., :quarter], heads[..., quarter : 2 * quarter]
    rotated = (
        torch.addcmul(first * rotation.cos, second, rotation.sin, value=-1),
        torch.addcmul(first * rotation.sin, second, rotation.cos),
    )
    return torch.cat((*(part.to(heads.dtype) for part in rotated), heads[..., 2 * quarter :]), dim=-1)
