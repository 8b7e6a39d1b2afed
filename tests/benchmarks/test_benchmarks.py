"""The benchmarks measure what they say; how fast it is here and now is not tested."""

import numpy as np
import pytest
import torch

from benchmarks.measure import drawn_image, side_by_side
from benchmarks.packages import random_package
from benchmarks.time_spent import STAGES, measure
from benchmarks.workflows import core_blocks, our_block
from training.demo_config import DEMO_CONFIG
from workflow_blocks.bundled_model import demo_model_folder


@pytest.fixture(scope="module")
def package():
    with random_package(DEMO_CONFIG, torch.bfloat16) as folder:
        yield str(folder)


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


def test_every_stage_is_timed():
    stages = measure(demo_model_folder(), rounds=1)

    assert set(stages) == set(STAGES)
    assert all(measured["seconds"] > 0 for measured in stages.values())


def test_runs_take_turns():
    order = []

    side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)

    assert order == ["a", "b"] * 3
