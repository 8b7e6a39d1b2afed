import pytest
import torch
from safetensors.torch import load_file

from workflow_blocks.moondream2.config import TextConfig
from workflow_blocks.moondream2.rows import KeyValues
from workflow_blocks.moondream2.text import Text, rotate, rotation_at

CONFIG = TextConfig(dim=64, ff_dim=96, n_layers=2, vocab_size=50, n_heads=4, n_kv_heads=2)


def test_a_prefix_keeps_grouped_heads():
    heads = Text(CONFIG).read_prefix(torch.rand(2, 3, 64))

    assert [layer.shape for layer in heads] == [(2, 3, 4 + 2 + 2, 16)] * 2
    keys, values = KeyValues.of(heads[0][1], CONFIG.n_kv_heads)
    torch.testing.assert_close(keys, heads[0][1, :, 4:6].transpose(0, 1))
    torch.testing.assert_close(values, heads[0][1, :, 6:].transpose(0, 1))


def test_rotation_leaves_scores_to_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.rand(2, 1, 1, 16).expand(2, 1, 8, 16)

    def score(query_at, key_at):
        rotated_query = rotate(query, rotation_at(torch.tensor([query_at]), CONFIG))
        rotated_key = rotate(key, rotation_at(torch.tensor([key_at]), CONFIG))
        return (rotated_query * rotated_key).sum(-1)[0, 0]

    torch.testing.assert_close(score(7, 3), score(104, 100))
    assert not torch.isclose(score(7, 3), score(7, 4)).all()


@pytest.mark.parametrize(
    "place", [pytest.param(slice(8, None), id="second half"), pytest.param(slice(None), id="values")]
)
def test_values_are_not_rotated(place):
    heads = torch.rand(1, 3, 8, 16)
    which = slice(6, None) if place == slice(None) else slice(None)

    rotated = rotate(heads, rotation_at(torch.arange(3), CONFIG))

    torch.testing.assert_close(rotated[:, :, which, place], heads[:, :, which, place], rtol=0, atol=0)
    assert not torch.equal(rotated, heads)


def test_prefix_keys_match_the_reference(golden_folder, golden_detector):
    """The reference stores rotated pairs side by side; ours are half a rotation apart."""
    expected = load_file(golden_folder / "expected_intermediates.safetensors")
    embeddings = expected["0.img_emb"]
    text = golden_detector.model.text

    with torch.inference_mode():
        heads = text.read_prefix(torch.cat((text.embed(torch.tensor([0])), embeddings)).unsqueeze(0))

    keys, _ = KeyValues.of(heads[-1][0], text.config.n_kv_heads)
    first, second, rest = keys.split((16, 16, 32), dim=-1)
    interleaved = torch.cat((torch.stack((first, second), dim=-1).flatten(-2), rest), dim=-1)
    torch.testing.assert_close(interleaved[None], expected["0.k_cache_last_layer"], rtol=0, atol=1e-4)
