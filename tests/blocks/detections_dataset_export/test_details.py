"""What the export block records of detections besides boxes and classes."""

import json

import numpy as np
import pytest
import supervision as sv

from workflow_blocks.blocks.common.client_errors import InvalidInputError
from workflow_blocks.blocks.detections_dataset_export.details import details_of
from workflow_blocks.datasets.details import detail_from_json


def detections(**fields):
    return sv.Detections(xyxy=np.array([[10.0, 10.0, 30.0, 30.0]]), class_id=np.array([0]), **fields)


def crop_mask():
    mask = np.zeros((40, 50), bool)
    mask[5:25, 5:25] = True
    return mask


@pytest.mark.parametrize("is_rle", [False, True])
@pytest.mark.parametrize("shift", [(0, 0), (5, 7), (-10, -8), (60, 60), (500, 500)])
def test_the_mask_of_a_crop_moves_to_its_place_in_the_image(is_rle, shift):
    mask = crop_mask()
    if is_rle:
        column = np.array([{"size": [40, 50], "counts": sv.mask_to_rle(mask, compressed=True)}], object)
        found = detections(data={"rle_mask": column})
    else:
        found = detections(mask=mask[None])

    details = details_of(found, np.array([shift], float), width=80, height=70)

    left, top = (max(5 + value, 0) for value in shift)
    right, bottom = min(25 + shift[0], 80), min(25 + shift[1], 70)
    if left >= right:
        assert details == []
    else:
        corners = np.reshape(details[0].polygons[0], (-1, 2))
        assert corners.min(0).tolist() == [left, top]
        assert corners.max(0).tolist() == [right - 1, bottom - 1]
        assert details[0].area == (right - left) * (bottom - top)


@pytest.mark.parametrize(
    ("fields", "score", "prompt"),
    [
        ({"confidence": np.array([0.5])}, 0.5, ""),
        ({"confidence": np.array([0.0])}, 0.0, ""),
        ({"confidence": np.array([np.nan]), "data": {"prompt": np.array(["dog"])}}, None, "dog"),
    ],
)
def test_scores_and_prompts_are_kept(fields, score, prompt):
    (detail,) = details_of(detections(**fields), np.zeros((1, 2)), 80, 70)

    assert (detail.score, detail.prompt) == (score, prompt)


def test_answers_are_attributes_also_of_boxes_with_masks():
    data = {
        "answer": np.array([np.str_("red")]),
        "answer_probability": np.array([0.75], object),
        "answer_odd_probability": np.array([np.nan]),
        "answer_tools": np.array([None], object),
        "other": np.array([1]),
    }

    for fields in ({}, {"mask": crop_mask()[None]}):
        (detail,) = details_of(detections(data=data, **fields), np.zeros((1, 2)), 50, 40)

        assert bool(detail.polygons) == bool(fields)
        assert detail_from_json(json.loads(json.dumps(detail.as_json()))) == detail
        assert detail.attributes == {
            "answer": "red",
            "answer_probability": 0.75,
            "answer_odd_probability": None,
            "answer_tools": None,
        }


def test_nothing_is_recorded_where_nothing_is_known():
    assert details_of(detections(), np.zeros((1, 2)), 80, 70) == []


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [40, 50], "counts": "PPQ9"},
        {"size": [40, 50], "counts": [1, 2, 3]},
        {"size": [40, 50], "counts": "\u6a21"},
        {"size": [40], "counts": "PPQ9"},
        {"size": "large", "counts": "PPQ9"},
        {"counts": "PPQ9"},
        {"size": [40, 50]},
        "PPQ9",
        [1, 2],
    ],
)
def test_a_mask_that_cannot_be_read_is_a_client_error(rle):
    column = np.empty(1, object)
    column[0] = rle

    with pytest.raises(InvalidInputError, match="`predictions` has a mask that cannot be read"):
        details_of(detections(data={"rle_mask": column}), np.zeros((1, 2)), width=50, height=40)
