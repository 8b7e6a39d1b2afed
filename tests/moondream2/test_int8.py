import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workflow_blocks.moondream2 import int8 as int8_module
from workflow_blocks.moondream2 import layers
from workflow_blocks.moondream2.int8 import Int8Linear, int8_problem
from workflow_blocks.moondream2.runtime import Runtime

pytestmark = pytest.mark.skipif(int8_problem() is not None, reason=str(int8_problem()))


def relative_error(found, expected, dim):
    """The largest error along `dim`, relative to the expected values' size."""
    return ((found.float() - expected).norm(dim=dim) / expected.norm(dim=dim)).max().item()


def layer_of(width, dtype, rows=50):
    torch.manual_seed(0)
    own = nn.Linear(width, 96)
    x = torch.randn(2, rows, width)
    return own, Int8Linear(own.weight.detach(), own.bias.detach(), dtype), x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 8, 100])
@pytest.mark.parametrize("width", [24, 100, 1024])
def test_an_int8_layer_gives_nearly_what_the_wide_one_gives(dtype, rows, width):
    own, quantised, x = layer_of(width, dtype, rows)

    assert relative_error(quantised(x.to(dtype)), own(x), -1) < 0.03
    gelu = F.gelu(own(x), approximate="tanh")
    assert relative_error(quantised.gelu(x.to(dtype)), gelu, -1) < 0.05


@pytest.mark.parametrize("large", [1, 30, 3000])
def test_a_channel_with_large_weights_does_not_make_others_coarse(large):
    own, _, x = layer_of(256, torch.float32)
    own.weight.data[3] *= large
    quantised = Int8Linear(own.weight.detach(), own.bias.detach(), torch.float32)

    assert relative_error(quantised(x), own(x), (0, 1)) < 0.03


@pytest.mark.parametrize("large", [1, 30, 3000])
def test_a_token_with_large_values_does_not_make_others_coarse(large):
    own, quantised, x = layer_of(256, torch.float32)
    x[0, 2] *= large

    assert relative_error(quantised(x), own(x), -1) < 0.03
    assert relative_error(quantised.gelu(x), F.gelu(own(x), approximate="tanh"), -1) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", [1, 8, 600])
@pytest.mark.parametrize("large", [0, 1, 30])
def test_rows_do_not_change_each_other(dtype, tokens, large):
    _, quantised, x = layer_of(256, dtype, tokens)
    x[1, 0] *= large
    x = x.to(dtype)

    for layer in (quantised, quantised.gelu):
        together, alone = layer(x), torch.cat([layer(x[:1]), layer(x[1:])])
        assert torch.equal(together, alone)
        assert torch.equal(layer(x[0]), together[0])


@pytest.mark.parametrize("value", [0.0, 1e-38, 1e30])
def test_tokens_of_any_size_give_finite_results(value):
    _, quantised, x = layer_of(64, torch.float32)

    assert torch.isfinite(quantised(torch.full_like(x, value))).all()


def test_weights_of_zeros_give_the_bias():
    layer = Int8Linear(torch.zeros(32, 32), torch.arange(32.0), torch.float32)

    torch.testing.assert_close(layer(torch.randn(4, 32)), torch.arange(32.0).expand(4, 32))


def test_the_large_layers_are_quantised_and_nothing_else(golden_package):
    runtime = Runtime.from_folder(golden_package, dtype=torch.int8)

    layers_of = dict(runtime.model.named_modules())
    int8 = {name for name, module in layers_of.items() if isinstance(module, Int8Linear)}
    wide = {name for name, module in layers_of.items() if isinstance(module, nn.Linear)}
    assert runtime.placement == (torch.device("cpu"), torch.int8)
    assert int8
    assert all(name.startswith(("vision.blocks", "vision.proj_mlp", "text.blocks")) for name in int8)
    assert {name.split(".")[0] for name in wide} == {"vision", "text", "region"}
    assert not any(name.startswith(("vision.blocks", "vision.proj_mlp", "text.blocks")) for name in wide)
    image = np.zeros((50, 60, 3), np.uint8)
    (encoded,) = runtime.encode_images([image])
    assert all(torch.isfinite(tensor).all() for layer in encoded.prefix for tensor in layer)


def test_a_machine_without_the_instructions_is_told(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)

    assert "avx512_vnni" in int8_problem()


@pytest.mark.parametrize("fault", ["wrong", "fails"])
def test_instructions_that_do_not_work_are_noticed(monkeypatch, fault):
    def multiply(self, tokens, *_):
        if fault == "fails":
            raise RuntimeError("could not create a primitive")
        return torch.zeros(len(tokens), self.out_features)

    monkeypatch.setattr(int8_module.Int8Linear, "_multiply", multiply)

    assert "int8 products" in int8_problem()


@pytest.mark.parametrize("at_once", [1, 2**21])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_attention_in_products_is_attention(monkeypatch, at_once, n_kv_heads):
    monkeypatch.setattr(layers, "_SCORES_AT_ONCE", at_once)
    torch.manual_seed(0)
    heads = torch.randn(2, 9, 4 + 2 * n_kv_heads, 8)
    queries, keys, values = heads.transpose(1, 2).split([4, n_kv_heads, n_kv_heads], dim=1)

    found = layers._attend_in_products(queries, keys, values)

    torch.testing.assert_close(found, layers.attend(heads, 4))
