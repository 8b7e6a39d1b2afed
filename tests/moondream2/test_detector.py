import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workflow_blocks.moondream2.detector import PromptTooLongError

GOLDEN = Path(__file__).parents[1] / "golden" / "moondream2_tiny"
CASES = json.loads((GOLDEN / "expected_detections.json").read_text())
COORDINATES = ("x_min", "y_min", "x_max", "y_max")
PROBABILITIES = ("p_object", "p_x", "p_y", "p_w", "p_h")


@pytest.fixture(scope="module")
def encoded(golden_detector):
    """Encodes each golden image once."""
    images = {}

    def encode(name):
        if name not in images:
            pixels = np.asarray(Image.open(GOLDEN / name).convert("RGB"))
            images[name] = golden_detector.encode_image(pixels)
        return images[name]

    return encode


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{Path(case['image']).stem}-{case['prompt'][:20]}")
def test_detect_finds_what_the_reference_finds(golden_detector, encoded, case):
    (objects,) = golden_detector.detect(encoded(case["image"]), [case["prompt"]], case["max_objects"])

    assert golden_detector.tokenizer.encode(" " + case["prompt"]).ids == case["prompt_ids"]
    assert len(objects) == len(case["objects"])
    for found, expected in zip(objects, case["objects"], strict=True):
        for name in COORDINATES:
            assert getattr(found, name) == pytest.approx(expected[name], abs=1e-5)
        for name in PROBABILITIES:
            assert getattr(found, name) == pytest.approx(expected[name], abs=1e-3)


def test_detect_gives_each_prompt_its_own_objects(golden_detector, encoded):
    image = encoded(CASES[0]["image"])
    prompts = [case["prompt"] for case in CASES if case["image"] == CASES[0]["image"]]

    together = golden_detector.detect(image, prompts, 12)

    assert together == [golden_detector.detect(image, [prompt], 12)[0] for prompt in prompts]


@pytest.mark.parametrize("limit", [1, 3])
def test_detect_stops_at_the_limit(golden_detector, encoded, limit):
    case = max(CASES, key=lambda case: len(case["objects"]))

    (objects,) = golden_detector.detect(encoded(case["image"]), [case["prompt"]], limit)

    assert len(objects) == limit


def test_detect_refuses_a_prompt_that_does_not_fit(golden_detector, encoded):
    with pytest.raises(PromptTooLongError, match="tokens"):
        golden_detector.detect(encoded(CASES[0]["image"]), ["fine", "word " * 2000])


def test_no_prompts_give_no_results(golden_detector, encoded):
    assert golden_detector.detect(encoded(CASES[0]["image"]), []) == []
