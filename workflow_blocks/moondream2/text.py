"""The text decoder.

Shapes: B rows, T new tokens, S tokens in all (earlier and new), D width, H heads, d head width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workflow_blocks.moondream2.config import TextConfig
from workflow_blocks.moondream2.layers import LAYER_NORM_EPS, Attention, Mlp, attend

ROTARY_THETA = 10000.0


class KeyValues(NamedTuple):
    """What one layer keeps of the tokens it has seen: keys and values, each (B, H_kv, S, d)."""

    keys: Tensor
    values: Tensor


class TextBlock(nn.Module):
    """A transformer block whose attention and MLP read the same normed input, in parallel."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(config.dim, config.n_heads, config.n_kv_heads)
        self.mlp = Mlp(config.dim, config.ff_dim, config.dim)

    def forward(
        self, x: Tensor, rotation: "Rotation", mask: Tensor | None, past: KeyValues | None
    ) -> tuple[Tensor, KeyValues]:
        normed = self.ln(x)
        queries, keys, values = self.attn.split(normed)
        queries, keys = rotate(queries, rotation), rotate(keys, rotation)
        if past is not None:
            keys = torch.cat((past.keys, keys), dim=2)
            values = torch.cat((past.values, values), dim=2)
        x = x + self.attn.merge(attend(queries, keys, values, mask)) + self.mlp(normed)
        return x, KeyValues(keys, values)


class Text(nn.Module):
    """Embeds tokens, runs the decoder and reads the next token's logits."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Parameter(torch.empty(config.vocab_size, config.dim))
        self.blocks = nn.ModuleList(TextBlock(config) for _ in range(config.n_layers))
        self.post_ln = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.lm_head = nn.Linear(config.dim, config.vocab_size)

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token ids (..., T) to embeddings (..., T, D)."""
        return F.embedding(token_ids, self.wte)

    def forward(
        self,
        embeddings: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        past: Sequence[KeyValues] | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:
        """Runs the decoder over new tokens.

        Args:
            embeddings: (B, T, D).
            positions: int64 (B, T) or (T,), each token's place in its sequence.
            mask: boolean, broadcastable to (B, H, T, S); true where a new token may look. Without it,
                every new token sees all tokens.
            past: each layer's earlier keys and values.

        Returns:
            Hidden states (B, T, D) before `post_ln`, and every layer's keys and values (S tokens).
        """
        rotation = rotation_at(positions, self.config.head_dim)
        x = embeddings
        seen = []
        for index, block in enumerate(self.blocks):
            x, key_values = block(x, rotation, mask, past[index] if past is not None else None)
            seen.append(key_values)
        return x, seen

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to next-token logits (..., vocab)."""
        return self.lm_head(self.post_ln(hidden))


class Rotation(NamedTuple):
    """Cosines and sines of the rotary angles, float32, broadcastable to (B, H, T, d / 4)."""

    cos: Tensor
    sin: Tensor


def rotation_at(positions: Tensor, head_dim: int) -> Rotation:
    """The rotary angles at `positions` ((B, T) or (T,)); half of each head's values are rotated.

    Rotary position embedding: Su et al., 2021, https://arxiv.org/abs/2104.09864.
    """
    rotated = head_dim // 2
    exponents = torch.arange(0, rotated, 2, dtype=torch.float32, device=positions.device) / rotated
    angles = positions.to(torch.float32).unsqueeze(-1) * ROTARY_THETA**-exponents
    angles = angles.unsqueeze(-3)  # the same for all heads
    return Rotation(torch.cos(angles), torch.sin(angles))


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotates the first half of each head of `x` (B, H, T, d); value i is paired with i + d / 4."""
    quarter = rotation.cos.shape[-1]
    first, second, rest = x.split([quarter, quarter, x.shape[-1] - 2 * quarter], dim=-1)
    rotated = (
        first * rotation.cos - second * rotation.sin,
        first * rotation.sin + second * rotation.cos,
    )
    return torch.cat((*(part.to(x.dtype) for part in rotated), rest), dim=-1)
