"""Packed layers compute what the layers that they stand for compute."""

import pytest
import torch
from torch.nn import functional as F

from benchmarks.packages import QUARTER_WIDTH, random_package
from workflow_blocks.moondream2.checkpoint import load_model
from workflow_blocks.moondream2.config import TextConfig, VisionConfig
from workflow_blocks.moondream2.layers import Linear, PackedLinear, is_faster_packed, multiplies_bfloat16

LARGE, SMALL = 1024, 64
CPU = torch.device("cpu")
FEW_LAYERS = QUARTER_WIDTH.model_copy(
    update={
        "vision": VisionConfig.model_validate(QUARTER_WIDTH.vision.model_dump() | {"enc_n_layers": 1}),
        "text": TextConfig.model_validate(QUARTER_WIDTH.text.model_dump() | {"n_layers": 1}),
    }
)

pytestmark = pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU has no bfloat16 instructions")


def values(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("shape", [(1, 1), (3,), (2, 64), (2, 5, 100), (0,)])
def test_the_products_are_the_same(shape):
    weight, bias, x = values(SMALL, LARGE) / 32, values(SMALL), values(*shape, LARGE)
    expected = F.linear(x, weight, bias)

    layer = PackedLinear(weight, bias)

    torch.testing.assert_close(layer(x), expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(layer.gelu(x), F.gelu(expected, approximate="tanh"), atol=0.02, rtol=0.02)


def test_values_that_are_not_contiguous_are_taken():
    weight, bias, x = values(LARGE, LARGE) / 32, values(LARGE), values(LARGE, 8).t()

    torch.testing.assert_close(PackedLinear(weight, bias)(x), F.linear(x, weight, bias), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("layer", "device", "dtype", "is_faster"),
    [
        (Linear(LARGE, LARGE), "cpu", torch.bfloat16, True),
        (Linear(SMALL, SMALL), "cpu", torch.bfloat16, False),
        (Linear(LARGE, LARGE), "cpu", torch.float32, False),
        (Linear(LARGE, LARGE), "cuda", torch.bfloat16, False),
        (torch.nn.LayerNorm(LARGE), "cpu", torch.bfloat16, False),
    ],
)
def test_only_large_bfloat16_layers_on_a_cpu_are_packed(layer, device, dtype, is_faster):
    assert is_faster_packed(layer, torch.device(device), dtype) is is_faster


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_a_model_with_packed_layers_computes_the_same(dtype):
    with random_package(FEW_LAYERS, torch.bfloat16) as folder:
        plain, packed = (load_model(folder, FEW_LAYERS, CPU, dtype, pack) for pack in (False, True))
    names = {name for name, layer in packed.named_modules() if isinstance(layer, PackedLinear)}

    assert "region.coord_decoder.fc1" in names
    assert "text.lm_head" not in names
    assert ("text.blocks.0.mlp.fc1" in names) is (dtype == torch.bfloat16)
    hidden = values(3, FEW_LAYERS.text.dim)
    torch.testing.assert_close(
        packed.region.coordinate_logits(hidden), plain.region.coordinate_logits(hidden), atol=0.05, rtol=0.05
    )
    crops = torch.randint(256, (2, 378, 378, 3), dtype=torch.uint8)
    torch.testing.assert_close(
        packed.vision.encode_crops(crops), plain.vision.encode_crops(crops), atol=0.1, rtol=0.1
    )
