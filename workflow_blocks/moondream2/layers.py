"""Layers that several parts of the model share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-5


def has_bfloat16_instructions() -> bool:
    """Whether this CPU multiplies bfloat16 matrices; no if this release of PyTorch cannot tell."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


# Without such instructions, converting a layer's weights to float32 each time is several times faster.
_MULTIPLIES_BFLOAT16 = has_bfloat16_instructions()

# On a CPU, PyTorch's own order splits few rows by a large weight badly between threads; weight @ x.T
# was measured 1.3 to 2.5 times faster for 2 to 64 rows, and no faster for small weights.
_FEW_ROWS = 64
_LARGE_WEIGHT = 2**19


class Linear(nn.Linear):
    """A linear layer that takes the quickest of the ways to the same result on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if weight.numel() >= _LARGE_WEIGHT and x.device.type == "cpu":
            rows = x.shape[:-1].numel()
            if weight.dtype == torch.float32 and 1 < rows <= _FEW_ROWS:
                few = x.reshape(rows, self.in_features)
                return torch.addmm(bias[:, None], weight, few.t()).t().unflatten(0, x.shape[:-1])
            if weight.dtype == torch.bfloat16 and rows > _FEW_ROWS and not _MULTIPLIES_BFLOAT16:
                return F.linear(x.float(), weight.float(), bias.float()).to(x.dtype)
        return F.linear(x, weight, bias)


class Mlp(nn.Module):
    """Two linear layers with a tanh-approximated GELU between."""

    def __init__(self, in_dim: int, inner_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(in_dim, inner_dim)
        self.fc2 = Linear(inner_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    """Multi-head attention. Shapes: H heads of width d, of them K for keys and K for values."""

    def __init__(self, dim: int, n_heads: int, n_kv_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = dim // n_heads
        self.qkv = Linear(dim, (n_heads + 2 * n_kv_heads) * self.head_dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Every token of `x` (B, T, D) attends to every other."""
        return self.proj(attend(self.heads(x), self.n_heads))

    def heads(self, x: Tensor) -> Tensor:
        """The queries, keys and values (B, T, H + 2 * K, d) of tokens (B, T, D)."""
        return self.qkv(x).unflatten(-1, (-1, self.head_dim))


def attend(heads: Tensor, n_heads: int) -> Tensor:
    """Softmax attention of every token to every other.

    Args:
        heads: queries, keys and values (B, T, H + 2 * K, d); K may be less than H.
        n_heads: H.

    Returns:
        (B, T, H * d).
    """
    n_kv = (heads.shape[2] - n_heads) // 2
    queries, keys, values = heads.transpose(1, 2).split([n_heads, n_kv, n_kv], dim=1)
    attended = F.scaled_dot_product_attention(queries, keys, values, enable_gqa=n_kv != n_heads)
    return attended.transpose(1, 2).flatten(2)
