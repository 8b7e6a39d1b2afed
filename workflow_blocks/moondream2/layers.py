"""Layers that several parts of the model share."""

import time
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-5


def has_bfloat16_instructions() -> bool:
    """Whether this CPU multiplies bfloat16 matrices; no if this release of PyTorch cannot tell."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


# A busy machine disturbs a measurement, and real instructions are twice as fast or more.
_CLEARLY_SLOWER = 1.3


@lru_cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16, and a short measurement does not show them to be slow.

    Virtual machines and emulators can promise instructions that they do not have.
    """
    return has_bfloat16_instructions() and not _is_slow_in_bfloat16()


def _is_slow_in_bfloat16() -> bool:
    """Compares matrix products of some milliseconds, in turns."""
    values = {dtype: torch.ones(2, 512, 1024, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)}

    def seconds(dtype: torch.dtype) -> float:
        left, right = values[dtype]
        start = time.perf_counter()
        left @ right.t()
        return time.perf_counter() - start

    bfloat16, float32 = (min(times) for times in zip(*(map(seconds, values) for _ in range(8)), strict=True))
    return bfloat16 > _CLEARLY_SLOWER * float32


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
            if weight.dtype == torch.bfloat16 and rows > _FEW_ROWS and not multiplies_bfloat16():
                return F.linear(x.float(), weight.float(), bias.float()).to(x.dtype)
        return F.linear(x, weight, bias)

    def gelu(self, x: Tensor) -> Tensor:
        """The layer and a tanh-approximated GELU of its result."""
        if _fuses_gelu(self.weight.device, self.weight.dtype) and not torch.compiler.is_compiling():
            fused: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "tanh")
            return fused
        return F.gelu(self(x), approximate="tanh")


def _fuses_gelu(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes GELU as part of the product: in bfloat16 that was measured 10 % faster."""
    return (
        dtype == torch.bfloat16
        and device.type == "cpu"
        and multiplies_bfloat16()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class PackedLinear(nn.Module):
    """A bfloat16 linear layer on a CPU, whose weight is stored in the order in which oneDNN multiplies it.

    Otherwise it is put into this order for each product, which takes up to 1.7 times as long with 2 to 64
    rows, and 5 % longer with the many rows of an image.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Packs a bfloat16 weight (out, in); a bias (out,) can be set later."""
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _FEW_ROWS)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return product

    def gelu(self, x: Tensor) -> Tensor:
        """The layer and a tanh-approximated GELU of its result."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], "tanh")
        return product


def is_faster_packed(layer: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a layer of the model is large, and this machine multiplies it faster if it is packed."""
    return (
        isinstance(layer, Linear)
        and layer.weight.numel() >= _LARGE_WEIGHT
        and _fuses_gelu(device, dtype)
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


class Mlp(nn.Module):
    """Two linear layers with a tanh-approximated GELU between."""

    def __init__(self, in_dim: int, inner_dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(in_dim, inner_dim)
        self.fc2 = Linear(inner_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1.gelu(x))


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
    if heads.dtype == torch.bfloat16 and heads.device.type == "cpu" and not torch.compiler.is_compiling():
        if heads.requires_grad:
            return _attend_in_training(queries, keys, values)
        if multiplies_bfloat16():
            return _attend_in_products(queries, keys, values)
    attended = F.scaled_dot_product_attention(queries, keys, values, enable_gqa=n_kv != n_heads)
    return attended.transpose(1, 2).flatten(2)


def _attend_in_training(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same, in steps that are learnt through: PyTorch's fused attention takes most of a step to do so."""
    group = queries.shape[1] // keys.shape[1]
    scores = queries * queries.shape[-1] ** -0.5 @ keys.repeat_interleave(group, dim=1).mT
    weights = scores.softmax(dim=-1).to(values.dtype)
    return (weights @ values.repeat_interleave(group, dim=1)).transpose(1, 2).flatten(2)


# Attention scores that stay in a CPU's cache between the two products and the softmax.
_SCORES_AT_ONCE = 2**21


def _attend_in_products(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The same as two products and a softmax for some heads at a time.

    PyTorch's fused attention does not use a CPU's bfloat16 instructions, and was measured 1.5 times slower.

    Args:
        queries: (B, H, T, d).
        keys: (B, K, T, d).
        values: (B, K, T, d).

    Returns:
        (B, T, H * d).
    """
    batch, n_heads, length, width = queries.shape
    attended = queries.new_empty(batch, length, n_heads, width)
    group = n_heads // keys.shape[1]
    at_once = max(1, _SCORES_AT_ONCE // (group * length**2)) * group
    for own_queries, own_keys, own_values, own in zip(
        queries, keys.contiguous(), values.contiguous(), attended, strict=True
    ):
        scaled = own_queries * width**-0.5
        mixed = own.transpose(0, 1)
        for start in range(0, n_heads, at_once):
            some = slice(start, start + at_once)
            shared = slice(start // group, (start + at_once) // group)
            # Query heads that share keys are taken as more tokens.
            of_keys = scaled[some].reshape(-1, group * length, width)
            weights = torch.bmm(of_keys, own_keys[shared].mT)
            torch.softmax(weights, dim=-1, out=weights)
            mixed[some] = torch.bmm(weights, own_values[shared]).view(-1, length, width)
    return attended.flatten(2)
