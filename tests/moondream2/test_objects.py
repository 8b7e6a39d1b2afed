import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.bins import RuntimeWithBins
from workflow_blocks.moondream2 import decoding as decoding_module
from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.objects import ObjectDecoder
from workflow_blocks.moondream2.prompt_tokens import PromptTooLongError
from workflow_blocks.moondream2.rows import Rows
from workflow_blocks.moondream2.runtime import Query, Runtime

GOLDEN = Path(__file__).parents[1] / "golden" / "moondream2_tiny"
CASES = json.loads((GOLDEN / "expected_detections.json").read_text())
COORDINATES = ("x_min", "y_min", "x_max", "y_max")
PROBABILITIES = ("p_object", "p_x", "p_y", "p_w", "p_h")
MAX_OBJECTS = 12
NAMES = sorted({case["image"] for case in CASES})


def read_image(name):
    return np.asarray(Image.open(GOLDEN / name).convert("RGB"))


@pytest.fixture(scope="module")
def encoded(golden_detector):
    """The golden images, encoded together."""
    return dict(zip(NAMES, golden_detector.encode_images([read_image(name) for name in NAMES]), strict=True))


@pytest.fixture(scope="module")
def detector_with_bins(golden_detector):
    """Also gives the probability of each chosen bin, which the golden data has."""
    return RuntimeWithBins(golden_detector.model, golden_detector.tokenizer)


def queries_of(cases, encoded):
    return [Query(encoded[case["image"]], case["prompt"]) for case in cases]


def assert_as_expected(objects, case):
    assert len(objects) == len(case["objects"])
    for found, expected in zip(objects, case["objects"], strict=True):
        for name in COORDINATES:
            assert getattr(found, name) == pytest.approx(expected[name], abs=1e-5)
        for name in PROBABILITIES:
            assert getattr(found, name) == pytest.approx(expected[name], abs=1e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{Path(case['image']).stem}-{case['prompt'][:20]}")
def test_detect_finds_what_the_reference_finds(detector_with_bins, encoded, case):
    assert case["max_objects"] == MAX_OBJECTS
    assert detector_with_bins.tokenizer.encode(" " + case["prompt"]).ids == case["prompt_ids"]

    (objects,) = detector_with_bins.detect(queries_of([case], encoded), MAX_OBJECTS)

    assert_as_expected(objects, case)


@pytest.mark.parametrize("seed", range(6))
def test_any_grouping_and_order_finds_the_same(detector_with_bins, encoded, seed):
    rng = random.Random(seed)
    cases = rng.sample(CASES, len(CASES)) if seed else CASES
    groups = [cases] if seed < 2 else []
    while sum(map(len, groups)) < len(cases):
        start = sum(map(len, groups))
        groups.append(cases[start : start + rng.randint(2, 9)])

    for group in groups:
        found = detector_with_bins.detect(queries_of(group, encoded), MAX_OBJECTS)
        for objects, case in zip(found, group, strict=True):
            assert_as_expected(objects, case)


def test_images_encoded_alone_and_together_are_the_same(golden_detector, encoded):
    for name in NAMES:
        (alone,) = golden_detector.encode_images([read_image(name)])
        for layer, expected in zip(alone.prefix, encoded[name].prefix, strict=True):
            torch.testing.assert_close(layer, expected, rtol=0, atol=1e-5)


def test_sixty_four_prompts_run_in_groups_that_fit_the_memory(golden_detector, encoded, monkeypatch):
    budget = 64 * 2**20
    detector = Runtime(golden_detector.model, golden_detector.tokenizer, WorkingMemory(budget))
    groups = []

    class WatchedRows(Rows):
        def __init__(self, config, prefixes, rows_of_prefix, lengths):
            super().__init__(config, prefixes, rows_of_prefix, lengths)
            groups.append([len(lengths), 0])

        def extend(self, count):
            positions = super().extend(count)
            groups[-1][1] = max(groups[-1][1], self.nbytes)
            return positions

    monkeypatch.setattr(decoding_module, "Rows", WatchedRows)
    queries = [Query(encoded[CASES[0]["image"]], f"thing number {number}") for number in range(64)]

    found = detector.detect(queries)

    assert sum(size for size, _ in groups) == 64
    assert len(groups) > 1
    assert max(size for size, _ in groups) > 1
    assert max(taken for _, taken in groups) <= budget // 2
    for objects, others in zip(found, golden_detector.detect(queries), strict=True):
        np.testing.assert_allclose(_numbers(objects), _numbers(others), atol=1e-4)


def _numbers(objects):
    return np.array([list(vars(item).values()) for item in objects])


def test_threads_give_the_same_as_one_thread(golden_detector):
    detector = RuntimeWithBins(golden_detector.model, golden_detector.tokenizer, cache_bytes=2**20)

    def answer(case):
        (image,) = detector.encode_images([read_image(case["image"])])
        return detector.detect([Query(image, case["prompt"])], MAX_OBJECTS)[0]

    with ThreadPoolExecutor(8) as threads:
        for objects, case in zip(threads.map(answer, CASES), CASES, strict=True):
            assert_as_expected(objects, case)


@pytest.mark.parametrize("limit", [1, 3])
def test_detect_stops_at_the_limit(golden_detector, encoded, limit):
    case = max(CASES, key=lambda case: len(case["objects"]))

    (objects,) = golden_detector.detect(queries_of([case], encoded), limit)

    assert len(objects) == limit


class KeepingDecoder(ObjectDecoder):
    """Keeps what each object was chosen from."""

    def _box_values(self, p_object, *choices):
        self.choices = choices
        return super()._box_values(p_object, *choices)


class RuntimeWithChoices(Runtime):
    object_decoder_type = KeepingDecoder


def share_near(choice, is_near):
    """The probability of the bins whose values are near the chosen one."""
    chosen = choice.value.item()
    shares = zip(choice.bin_values.tolist(), choice.probabilities[0].tolist(), strict=True)
    return sum(probability for value, probability in shares if is_near(value, chosen))


def test_confidence_is_the_probability_of_the_object_and_of_boxes_near_it(golden_detector, encoded):
    """Near: the centre moves by at most a fifth of the size, and the size differs by at most a fifth."""
    detector = RuntimeWithChoices(golden_detector.model, golden_detector.tokenizer)
    p_boxes = []
    for query in queries_of([case for case in CASES if case["objects"]], encoded):
        ((item,),) = detector.detect([query], 1)
        x, y, w, h = detector._objects.choices
        expected = 1.0
        for centre, size in ((x, w), (y, h)):
            reach = 0.2 * size.value.item()
            expected *= share_near(centre, lambda value, chosen, reach=reach: abs(value - chosen) <= reach)
            expected *= share_near(size, lambda value, chosen: min(value, chosen) >= 0.8 * max(value, chosen))
        p_boxes.append(item.p_box)
        assert item.p_box == pytest.approx(expected, abs=1e-4)
        assert item.confidence == pytest.approx(item.p_object * item.p_box)
        assert 0 < item.p_object < 1

    assert 0 < min(p_boxes) < 0.5 < max(p_boxes) < 1


def test_refined_boxes_stay_near_and_do_not_change_what_follows(golden_detector, encoded):
    refining = Runtime(golden_detector.model, golden_detector.tokenizer, refine_boxes=True)
    queries = queries_of(CASES, encoded)

    plain, refined = (detector.detect(queries, MAX_OBJECTS) for detector in (golden_detector, refining))

    assert [len(objects) for objects in plain] == [len(objects) for objects in refined]
    numbers = [
        np.concatenate([_numbers(objects) for objects in found if objects]) for found in (plain, refined)
    ]
    np.testing.assert_array_equal(numbers[0][:, 4:], numbers[1][:, 4:])
    moved = np.abs(numbers[0][:, :4] - numbers[1][:, :4])
    assert 0 < moved.max() < 0.1


def test_detect_refuses_a_prompt_that_does_not_fit(golden_detector, encoded):
    image = encoded[NAMES[0]]

    with pytest.raises(PromptTooLongError, match="tokens"):
        golden_detector.detect([Query(image, "fine"), Query(image, "word " * 2000)])


def test_no_queries_give_no_results(golden_detector):
    assert golden_detector.detect([]) == []
    assert golden_detector.encode_images([]) == []
