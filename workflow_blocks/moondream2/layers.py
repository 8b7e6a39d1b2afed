"""Layers that several parts of the model share."""

from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-5


class Mlp(nn.Module):
    """Two linear layers with a tanh-approximated GELU between."""

    def __init__(self, in_dim: int, inner_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, inner_dim)
        self.fc2 = nn.Linear(inner_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    """The weights of a multi-head attention; who attends to whom is the caller's matter."""

    def __init__(self, dim: int, n_heads: int, n_kv_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = dim // n_heads
        self.qkv = nn.Linear(dim, (n_heads + 2 * n_kv_heads) * self.head_dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) to queries (B, H, T, d), keys and values (B, H_kv, T, d)."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        return heads.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=1)

    def merge(self, attended: Tensor) -> Tensor:
        """(B, H, T, d) to (B, T, D)."""
        return self.proj(attended.transpose(1, 2).flatten(2))


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention; keys and values may have fewer heads than the queries.

    `mask` is boolean, broadcastable to (B, H, T, S), true where a query may look.
    """
    return F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, enable_gqa=keys.shape[1] != queries.shape[1]
    )
