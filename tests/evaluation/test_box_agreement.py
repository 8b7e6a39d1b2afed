"""Which boxes of two models agree."""

import numpy as np
import pytest
import supervision as sv

from workflow_blocks.evaluation.box_agreement import MIN_IOU, Box, agreement_by_prompt, match_boxes, total


def box(x_min, y_min, x_max, y_max, prompt=0):
    return Box(prompt, (x_min, y_min, x_max, y_max), 1.0)


def random_boxes(seed, n_boxes, n_prompts=2):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 20, (n_boxes, 2))
    sizes = random.uniform(5, 30, (n_boxes, 2))
    prompts = random.integers(0, n_prompts, n_boxes)
    return [
        box(*start, *(start + size), int(p)) for start, size, p in zip(corners, sizes, prompts, strict=True)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_a_match_has_one_prompt_enough_overlap_and_boxes_of_its_own(seed):
    reference, other = random_boxes(seed, 12), random_boxes(seed + 100, 9)

    matches = match_boxes(reference, other)

    ious = sv.box_iou_batch(np.array([b.xyxy for b in reference]), np.array([b.xyxy for b in other]))
    for row, column, iou in matches:
        assert reference[row].prompt == other[column].prompt
        assert iou == pytest.approx(ious[row, column])
        assert iou >= MIN_IOU
    rows, columns = [m.reference for m in matches], [m.other for m in matches]
    assert len(set(rows)) == len(set(columns)) == len(matches)
    for row in set(range(len(reference))) - set(rows):
        for column in set(range(len(other))) - set(columns):
            assert reference[row].prompt != other[column].prompt or ious[row, column] < MIN_IOU


@pytest.mark.parametrize("seed", range(5))
def test_a_model_agrees_with_itself(seed):
    boxes = random_boxes(seed, 15)

    assert [(row, row, 1) for row in range(15)] == sorted(match_boxes(boxes, boxes))


def test_the_boxes_that_overlap_most_are_paired_first():
    reference = [box(0, 0, 10, 10)]
    other = [box(0, 0, 10, 8), box(0, 0, 10, 9)]

    assert match_boxes(reference, other) == [(0, 1, pytest.approx(0.9))]


@pytest.mark.parametrize(
    ("reference", "other"),
    [
        pytest.param([], [], id="no boxes"),
        pytest.param([box(0, 0, 9, 9)], [], id="one side is empty"),
        pytest.param([box(0, 0, 9, 9)], [box(0, 0, 9, 9, prompt=1)], id="another prompt"),
        pytest.param([box(0, 0, 10, 10)], [box(0, 0, 10, 4.9)], id="too little overlap"),
        pytest.param([box(3, 3, 3, 3)], [box(3, 3, 3, 3)], id="no area"),
    ],
)
def test_boxes_that_do_not_agree(reference, other):
    assert match_boxes(reference, other) == []


def test_agreement_is_counted_by_prompt_and_image():
    same, shrunk, alone = box(0, 0, 10, 10), box(0, 0, 10, 8), box(50, 50, 60, 60)
    second = box(0, 0, 10, 10, prompt=1)

    by_prompt = agreement_by_prompt([[same, alone], [same], []], [[same], [shrunk], [second, alone]], 3)

    counts = [(part.agree, part.missed, part.added, part.mean_iou) for part in [*by_prompt, total(by_prompt)]]
    assert counts == [
        (2, 1, 1, pytest.approx(0.9)),
        (0, 0, 1, None),
        (0, 0, 0, None),
        (2, 1, 2, pytest.approx(0.9)),
    ]
