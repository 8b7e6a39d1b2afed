import re

import numpy as np
import pytest

from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.common.detections import (
    DetectionLimits,
    ImageDetections,
    select_detections,
)
from workflow_blocks.blocks.common.manifest_fields import checked
from workflow_blocks.blocks.common.prompts import parse_prompts

KEEP_ALL = {"confidence": 0.0, "max_detections": 50, "iou_threshold": 1.0, "class_agnostic_nms": False}


def found(*rows):
    """Detections of rows (x_min, y_min, x_max, y_max, class id, confidence)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return ImageDetections(table[:, :4], table[:, 4].astype(np.int64), table[:, 5])


def select(detections, prompts=("a", "b"), **limits):
    classes = parse_prompts(prompts)
    return select_detections(detections, classes, 100, 50, DetectionLimits(**(KEEP_ALL | limits)))


def test_boxes_are_clipped_to_the_image():
    selected = select(found((-5, -5, 20, 20, 0, 1), (90, 40, 120, 70, 0, 1)))

    assert selected.xyxy.tolist() == [[0, 0, 20, 20], [90, 40, 100, 50]]


def test_boxes_without_area_are_dropped():
    selected = select(found((10, 10, 10, 20, 0, 1), (120, 10, 140, 20, 0, 1), (1, 1, 2, 2, 0, 1)))

    assert selected.xyxy.tolist() == [[1, 1, 2, 2]]


@pytest.mark.parametrize(("confidence", "kept"), [(0.0, 3), (0.5, 2), (0.51, 1), (1.0, 0)])
def test_confidence_keeps_what_reaches_it(confidence, kept):
    rows = [(i, 0, i + 1, 1, 0, score) for i, score in enumerate((0.2, 0.5, 0.9))]

    assert len(select(found(*rows), confidence=confidence)) == kept


@pytest.mark.parametrize(
    ("iou_threshold", "agnostic", "kept"),
    [
        pytest.param(0.5, False, [1, 2], id="the surer of a class stays"),
        pytest.param(0.5, True, [1], id="across classes"),
        pytest.param(1.0, False, [0, 1, 2], id="all stay"),
    ],
)
def test_duplicates_are_removed(iou_threshold, agnostic, kept):
    rows = [(0, 0, 20, 20, 0, 0.6), (1, 0, 20, 20, 0, 0.9), (0, 0, 20, 20, 1, 0.5)]

    selected = select(found(*rows), iou_threshold=iou_threshold, class_agnostic_nms=agnostic)

    assert selected.confidence.tolist() == [rows[index][5] for index in kept]


CLASSES = {"helmet": ["hard hat", "safety helmet"], "person": "person", "any hat": ["hard hat", "cap"]}


def test_boxes_of_a_prompt_belong_to_every_class_that_has_it():
    rows = [(10 * prompt, 0, 10 * prompt + 5, 5, prompt, 0.5) for prompt in range(4)]

    selected = select(found(*rows), CLASSES)

    assert list(zip(selected.class_id.tolist(), selected["prompt"].tolist(), strict=True)) == [
        (0, "hard hat"),
        (2, "hard hat"),
        (0, "safety helmet"),
        (1, "person"),
        (2, "cap"),
    ]


def test_duplicates_of_two_prompts_are_removed_within_a_class():
    rows = [(0, 0, 20, 20, prompt, 0.5 + 0.1 * prompt) for prompt in range(4)]

    selected = select(found(*rows), CLASSES, iou_threshold=0.5)

    assert dict(zip(selected.class_id.tolist(), selected["prompt"].tolist(), strict=True)) == {
        0: "safety helmet",
        1: "person",
        2: "cap",
    }


@pytest.mark.parametrize(
    ("confidence", "kept"),
    [
        ({"a": 0.6, "b": 0.4}, [("b", 0.5), ("c", 0.5)]),
        ({"a": 0.6}, [("b", 0.5), ("c", 0.5)]),
        ({"a": 0.5, "*": 0.6}, [("a", 0.5)]),
        ({"*": 0.5}, [("a", 0.5), ("b", 0.5), ("c", 0.5)]),
        ({" a\n": 0.6}, [("b", 0.5), ("c", 0.5)]),
        ({"not among them": 1.0}, [("a", 0.5), ("b", 0.5), ("c", 0.5)]),
    ],
)
def test_each_class_has_its_own_threshold(confidence, kept):
    names = ["a", "b", "c"]
    rows = [(10 * i, 0, 10 * i + 5, 5, i, 0.5) for i in range(3)]

    selected = select(found(*rows), names, confidence=confidence)

    found_names = [names[class_id] for class_id in selected.class_id]
    assert list(zip(found_names, selected.confidence.tolist(), strict=True)) == kept


def test_max_detections_counts_for_each_class():
    rows = [(i, 0, i + 1, 1, i % 2, 0.1 * (i + 1)) for i in range(6)]

    selected = select(found(*rows), max_detections=2)

    assert selected.class_id.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(selected.confidence, [0.3, 0.4, 0.5, 0.6])


def test_empty_predictions_stay_empty():
    selected = select(found(), iou_threshold=0.5)

    assert selected.xyxy.shape == (0, 4)
    assert selected.class_id.shape == selected.confidence.shape == (0,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confidence", -0.1),
        ("confidence", 1.1),
        ("confidence", "0.5"),
        ("confidence", True),
        ("confidence", np.bool_(True)),
        ("confidence", [0.5]),
        ("confidence", float("nan")),
        ("confidence", {}),
        ("iou_threshold", 2),
        ("iou_threshold", None),
        ("max_detections", 0),
        ("max_detections", 51),
        ("max_detections", 2.5),
        ("max_detections", True),
        ("class_agnostic_nms", "perhaps"),
    ],
)
def test_limits_out_of_range_are_named(name, value):
    with pytest.raises(InvalidInputError, match=re.escape(f"`{name}` is {value!r}; give")):
        checked(DetectionLimits, **(KEEP_ALL | {name: value}))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": 2}, "`confidence` holds {'a': 2}; give a number from 0 to 1"),
        ({"a": {"b": 0.1}}, "`confidence` holds {'a': {'b': 0.1}}; give"),
        ({"": 0.1}, "`confidence` holds {'': 0.1}; give"),
        ({"a": 0.1, " a": 0.2}, "`confidence` is {'a': 0.1, ' a': 0.2}; give"),
    ],
)
def test_wrong_thresholds_are_named(value, problem):
    with pytest.raises(InvalidInputError, match=re.escape(problem)):
        checked(DetectionLimits, **(KEEP_ALL | {"confidence": value}))
