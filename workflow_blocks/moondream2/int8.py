"""Linear layers with int8 weights and activations, for CPUs with instructions for their products.

A weight has one scale for each output channel. The values of a token are quantised as they come, with one
scale for each token, so that a token with very large values does not make the others coarse. The products are
oneDNN's, through operators of PyTorch that need no compiler.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workflow_blocks.moondream2.layers import multiplies_bfloat16
from workflow_blocks.moondream2.model import Moondream2

# oneDNN takes unsigned activations: 128 is added to them, and taken off again.
_OFFSET = 128
_LARGEST = 127
# Tokens of a crop share a scale if none is above so many times the mean; GELU is then part of the product.
_EVEN = 2.0
# Fewer tokens are of prompts. Those have a scale each: rows of several requests must not change each other.
_MANY_TOKENS = 512
# Instructions for products of int8, as `torch.cpu.get_capabilities` names them.
INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
# The layers that are quantised: those that take most of the time. Patches, embeddings, norms, the next
# token's logits and the region heads stay wider: their errors would go straight into boxes and scores.
_QUANTISED = ("vision.blocks.", "vision.proj_mlp.", "text.blocks.")


def int8_problem() -> str | None:
    """Why this machine cannot run int8 on its CPU, or None if it can."""
    operators = torch.ops.onednn
    if not all(hasattr(operators, name) for name in ("qlinear_prepack", "qlinear_pointwise")):
        return f"PyTorch {torch.__version__} has no int8 products for this kind of CPU"
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        if not any(capabilities.get(name) for name in INSTRUCTIONS):
            return f"this CPU has none of the instructions that int8 needs ({', '.join(INSTRUCTIONS)})"
    return _wrong_product()


def _wrong_product() -> str | None:
    """Multiplies something small as the model will: containers and emulators can promise too much."""
    weight, x = (torch.linspace(-1, 1, 64 * 64).reshape(64, 64) for _ in range(2))
    expected = x @ weight.t()
    try:
        difference = (Int8Linear(weight, torch.zeros(64), torch.float32)(x) - expected).abs().max().item()
    except RuntimeError as error:
        return f"its int8 products do not run: {str(error).splitlines()[0]}"
    if not difference <= 0.05 * expected.abs().max().item():
        return "its int8 products are wrong"
    return None


def wide_dtype(model: Moondream2, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a model's weights that are not quantised; with `torch.int8`, as `auto` would choose."""
    if dtype != torch.int8:
        return dtype
    return torch.bfloat16 if model.is_large and multiplies_bfloat16() else torch.float32


def is_quantised(name: str) -> bool:
    """Whether a tensor of the model is a weight that becomes int8."""
    return name.startswith(_QUANTISED) and ".ln" not in name and name.endswith(".weight")


class Int8Linear(nn.Module):
    """A linear layer whose weight is int8. It takes and gives the wide dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        """Quantises a weight (out, in); a bias (out,) can be set later."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = dtype
        weight = weight.float()
        scales = (weight.abs().amax(dim=1) / _LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        # `round` goes from -127 to 127, so that nothing is clamped.
        quantised = (weight / scales[:, None]).round_().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(quantised, None)
        self.scales = scales
        self.zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self.bias = None if bias is None else bias.to(dtype)

    @property
    def nbytes(self) -> int:
        bias = 0 if self.bias is None else self.bias.nbytes
        return self.in_features * self.out_features + self.scales.nbytes + self.zeros.nbytes + bias

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        tokens = x.flatten(0, -2)
        scale = self._scales_of(tokens)
        product = self._multiply(_quantise(tokens, scale), 1.0, None)
        return torch.addcmul(self.bias, product, scale.to(self.dtype)).unflatten(0, x.shape[:-1])

    def gelu(self, x: Tensor) -> Tensor:
        """The layer and a tanh-approximated GELU of its result; `x` is (..., T, in)."""
        if x.shape[-2] < _MANY_TOKENS:
            return F.gelu(self(x), approximate="tanh")
        crops = x.flatten(0, -3) if x.ndim > 2 else x[None]
        return torch.stack([self._gelu_of_crop(tokens) for tokens in crops]).view(*x.shape[:-1], -1)

    def _gelu_of_crop(self, tokens: Tensor) -> Tensor:
        """With one scale for all tokens if that is fine enough; it does not depend on other crops."""
        scale = self._scales_of(tokens)
        largest = scale.max()
        if largest > _EVEN * scale.mean():
            return F.gelu(self(tokens), approximate="tanh")
        return self._multiply(_quantise(tokens, largest), largest.item(), self.bias, "gelu")

    def _scales_of(self, tokens: Tensor) -> Tensor:
        """The step between quantised values of each token, float32 (T, 1), exact in the wide dtype."""
        step = tokens.abs().amax(dim=-1, keepdim=True).float() * (1.005 / _LARGEST)
        return step.clamp_min(1e-30).to(self.dtype).float()

    def _multiply(
        self, tokens: Tensor, scale: float, bias: Tensor | None, activation: str = "none"
    ) -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            tokens,
            scale,
            _OFFSET,
            self.packed,
            self.scales,
            self.zeros,
            bias,
            1.0,  # of the result, which is not quantised
            0,
            self.dtype,
            activation,
            [],
            "tanh" if activation == "gelu" else "",
        )
        return product


def _quantise(tokens: Tensor, scale: Tensor) -> Tensor:
    """Tokens to uint8 with an offset of 128. Values are at most 127 steps from 0."""
    steps = tokens.to(torch.float32, copy=True).div_(scale).round_()
    # By way of int8, which PyTorch converts to several times faster.
    return steps.to(torch.int8).view(torch.uint8).bitwise_xor_(_OFFSET)
