"""The benchmarks measure what they say; how fast it is here and now is not tested."""

import numpy as np
import pytest
import torch

from benchmarks.measure import drawn_image, side_by_side
from benchmarks.packages import RELEASED, random_package
from benchmarks.time_spent import STAGES, measure
from benchmarks.workflows import CACHED, NOT_CACHED, OURS, block_runs, core_blocks, load_models, our_block
from training.demo_config import DEMO_CONFIG
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.moondream2.runtime import Runtime


@pytest.fixture(scope="module")
def package():
    with random_package(DEMO_CONFIG, torch.bfloat16) as folder:
        yield str(folder)


def test_packages_of_large_models_load():
    text = DEMO_CONFIG.text.model_copy(update={"vocab_size": RELEASED.text.vocab_size})
    config = DEMO_CONFIG.model_copy(update={"text": text, "tokenizer": RELEASED.tokenizer})
    with random_package(config, torch.bfloat16) as folder:
        assert Runtime.from_folder(folder).tokenizer.get_vocab_size() == RELEASED.text.vocab_size


def test_our_block_and_core_blocks_do_the_same_work(package, model_manager):
    image, prompts = drawn_image(120, 160), ["red circle", "star"]

    ours = our_block(model_manager, package, prompts)(image)[0]["detection"]
    core = core_blocks(model_manager, package, prompts)(image)[0]

    for index in range(len(prompts)):
        boxes = ours.xyxy[ours.class_id == index]
        assert 1 <= len(boxes) <= 5
        expected = core[f"detection_{index}"].xyxy
        visible = (expected[:, 2] > expected[:, 0]) & (expected[:, 3] > expected[:, 1])
        np.testing.assert_allclose(boxes, expected[visible], atol=1)


@pytest.mark.parametrize("is_bundled", [False, True])
def test_only_the_image_cache_spares_core_blocks_the_encoding(package, is_bundled, monkeypatch):
    package = demo_model_folder() if is_bundled else package
    encoded, encode = [], Runtime._encode
    monkeypatch.setattr(
        Runtime,
        "_encode",
        lambda self, images, are_bgr: encoded.extend(images) or encode(self, images, are_bgr),
    )
    image = drawn_image(120, 160)
    runs = block_runs(load_models(package, image), package, ["red circle", "star"], [image] * 2)

    counts = {}
    for name, run in runs.items():
        encoded.clear()
        run()
        run()
        counts[name] = len(encoded)

    # Two runs of two new images.
    assert counts == {OURS: 4, CACHED: 4, NOT_CACHED: 8}


def test_every_stage_is_timed():
    stages = measure(demo_model_folder(), rounds=1)

    assert set(stages) == set(STAGES)
    assert all(measured["seconds"] > 0 for measured in stages.values())


def test_runs_take_turns():
    order = []

    side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)

    assert order == ["a", "b"] * 3
