import pytest
import torch
from safetensors.torch import load_file

from workflow_blocks.moondream2.config import TextConfig
from workflow_blocks.moondream2.text import Text, rotate, rotation_at


@pytest.fixture
def grouped_text():
    """A small decoder whose queries share keys and values."""
    torch.manual_seed(0)
    text = Text(TextConfig(dim=64, ff_dim=96, n_layers=2, vocab_size=50, n_heads=4, n_kv_heads=2))
    torch.nn.init.normal_(text.wte)
    return text.eval()


def test_steps_one_by_one_give_what_one_pass_gives(grouped_text):
    embeddings = grouped_text.embed(torch.tensor([[3, 1, 4, 1, 5]]))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()

    with torch.no_grad():
        whole, _ = grouped_text(embeddings, torch.arange(5), causal)
        first, seen = grouped_text(embeddings[:, :2], torch.arange(2), causal[:2, :2])
        steps = [first]
        for position in range(2, 5):
            step, seen = grouped_text(
                embeddings[:, position : position + 1], torch.tensor([position]), None, seen
            )
            steps.append(step)

    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


def test_keys_and_values_keep_their_grouped_heads(grouped_text):
    _, seen = grouped_text(torch.rand(2, 3, 64), torch.arange(3))

    assert [layer.keys.shape for layer in seen] == [(2, 2, 3, 16)] * 2


def test_rotation_leaves_scores_to_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.rand(1, 1, 1, 16), torch.rand(1, 1, 1, 16)

    def score(query_at, key_at):
        rotated_query = rotate(query, rotation_at(torch.tensor([query_at]), 16))
        rotated_key = rotate(key, rotation_at(torch.tensor([key_at]), 16))
        return (rotated_query * rotated_key).sum()

    torch.testing.assert_close(score(7, 3), score(104, 100))
    assert not torch.isclose(score(7, 3), score(7, 4))


def test_second_half_of_a_head_is_not_rotated():
    x = torch.rand(1, 2, 3, 16)

    torch.testing.assert_close(rotate(x, rotation_at(torch.arange(3), 16))[..., 8:], x[..., 8:])


def test_prefix_keys_match_the_reference(golden_folder, golden_detector):
    """The reference stores rotated pairs side by side; ours are half a rotation apart."""
    expected = load_file(golden_folder / "expected_intermediates.safetensors")
    embeddings = expected["0.img_emb"]
    text = golden_detector.model.text

    with torch.inference_mode():
        prefix = torch.cat((text.embed(torch.tensor([0])), embeddings)).unsqueeze(0)
        _, seen = text(prefix, torch.arange(prefix.shape[1]))

    first, second, rest = seen[-1].keys.split((16, 16, 32), dim=-1)
    interleaved = torch.cat((torch.stack((first, second), dim=-1).flatten(-2), rest), dim=-1)
    torch.testing.assert_close(interleaved, expected["0.k_cache_last_layer"], rtol=0, atol=1e-4)
