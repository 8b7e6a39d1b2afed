"""Packing several prompts into one sequence must not change what the model computes."""

import numpy as np
import torch

from training.demo_config import DEMO_CONFIG
from training.detection_stage import (
    PADDING,
    SIZE,
    TOKEN,
    X,
    Y,
    _decode_packed,
    _embed,
    pack,
    pack_scene,
)
from training.initial_weights import initialise_decoder
from training.scenes import SceneObject
from training.tokenizer import make_tokenizer
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.rows import KeyValues, Rows

OBJECTS = (
    SceneObject("red", "circle", (0.6, 0.1, 0.8, 0.3)),
    SceneObject("red", "star", (0.1, 0.5, 0.2, 0.7)),
    SceneObject("blue", "circle", (0.3, 0.3, 0.5, 0.6)),
)


def packed_scene(seed=0):
    rng = np.random.default_rng(seed)
    return pack([pack_scene(rng, OBJECTS, make_tokenizer(DEMO_CONFIG.text.vocab_size), DEMO_CONFIG)])


def test_a_packed_prompt_gives_the_same_as_alone():
    torch.manual_seed(0)
    model = Moondream2(DEMO_CONFIG)
    initialise_decoder(model)
    packed = packed_scene()
    with torch.no_grad():
        prefix = torch.randn(1, DEMO_CONFIG.prefix_length, DEMO_CONFIG.text.dim)
        seen = model.text.read_prefix(prefix)
        kept = [KeyValues.of(heads[0], DEMO_CONFIG.text.n_kv_heads) for heads in seen]
        embeddings = _embed(model, packed)
        together, _ = _decode_packed(model.text, embeddings, packed, seen)
        for prompt in range(int(packed.prompt.max()) + 1):
            own = packed.prompt == prompt
            rows = Rows(DEMO_CONFIG.text, [kept], [1], own.sum(dim=1))
            alone = model.text(embeddings[:, own[0]], rows)
            torch.testing.assert_close(together[own], alone[0], atol=1e-4, rtol=1e-4)


def test_every_prompt_asks_for_its_objects_from_left_to_right_and_then_for_the_end():
    numbers = set()
    for seed in range(20):
        packed = packed_scene(seed)
        for prompt in range(int(packed.prompt.max()) + 1):
            own = packed.prompt[0] == prompt
            kinds, asks = packed.kinds[0][own].tolist(), packed.asks[0][own]
            looks_at = packed.looks_at[0][own]
            n_objects = kinds.count(X)
            numbers.add(n_objects)
            answering = asks != PADDING
            assert kinds[-3 * n_objects :] == [X, Y, SIZE] * n_objects or n_objects == 0
            assert set(kinds) <= {TOKEN, X, Y, SIZE}
            assert asks[answering].tolist() == [X, Y, SIZE] * n_objects + [X]
            assert looks_at[answering][-1] == -1
            xs = packed.answers[0][own][(asks == X) & (looks_at >= 0)][:, 0].tolist()
            assert xs == sorted(xs)
    assert numbers == {0, 1, 2, 3}


def test_coordinates_are_predicted_before_they_are_read():
    packed = packed_scene(3)
    n_read = 0
    for prompt in range(int(packed.prompt.max()) + 1):
        own = packed.prompt[0] == prompt
        answers, values = packed.answers[0][own], packed.values[0][own]
        kinds, looks_at = packed.kinds[0][own], packed.looks_at[0][own]
        for index in (kinds == X).nonzero().flatten().tolist():
            assert looks_at[index - 1] >= 0
            assert abs(answers[index - 1][0] - values[index][0]) < 0.05  # up to the noise
            n_read += 1
    assert n_read >= 3
