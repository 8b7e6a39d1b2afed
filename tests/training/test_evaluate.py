"""What evaluation makes of answers; the figures of the bundled model are in its card."""

from collections import Counter

import numpy as np
import pytest

from tests.stand_ins import SHAPES_MODEL, checkpoint_with_text
from training.evaluate import can_answer, draw_confusion
from training.evaluate_answers import AnswerScore, names_in
from training.evaluate_things import THING_NAMES, ThingScore, _add_detections, _add_points
from training.overlap import iou
from training.pictures import Item, Picture
from workflow_blocks.moondream2.objects import DetectedObject, DetectedPoint
from workflow_blocks.moondream2.runtime import Runtime


def picture(*items):
    return Picture(np.zeros((100, 200, 3), np.uint8), items, np.zeros((100, 200), np.uint8))


def thing(name, *box):
    return Item(name, None, frozenset(), box)


def detected(**boxes):
    return [[DetectedObject(*box, 0.9, 0.9) for box in boxes.get(name, [])] for name in THING_NAMES]


DOG, SMALL_CAT, TAXI = (0.1, 0.1, 0.4, 0.9), (0.6, 0.2, 0.65, 0.3), (0.7, 0.5, 0.9, 0.9)
SCENE = picture(thing("dog", *DOG), thing("cat", *SMALL_CAT), thing("taxi", *TAXI))


def test_right_boxes_score_one_and_are_told_apart_by_size():
    score = ThingScore()
    _add_detections(score, SCENE, detected(dog=[DOG], cat=[SMALL_CAT], taxi=[TAXI], car=[TAXI]))

    assert [part.compute().map50 for part in (score.all, score.large, score.small)] == pytest.approx(
        [1, 1, 1]
    )
    assert score.absent_names.right == 0


def test_a_missed_small_object_counts_among_the_small_alone():
    score = ThingScore()
    _add_detections(score, SCENE, detected(dog=[DOG], taxi=[TAXI]))

    assert score.large.compute().map50 == pytest.approx(1)
    assert score.small.compute().map50 == pytest.approx(0)
    assert 0.5 < score.all.compute().map50 < 0.8


def test_a_box_for_an_absent_name_is_a_false_alarm():
    score = ThingScore()
    _add_detections(score, SCENE, detected(fox=[DOG]))

    assert score.absent_names.right == 1
    # All names but dog, cat, taxi, and car, which a taxi is.
    assert score.absent_names.all == len(THING_NAMES) - 4


def test_a_point_counts_for_one_object_only():
    score = ThingScore()
    inside = DetectedPoint(0.2, 0.5, 0.9, 0.9)
    _add_points(score, [DOG, TAXI], [inside, inside])

    assert (score.point_recall.right, score.point_recall.all) == (1, 2)
    assert (score.point_precision.right, score.point_precision.all) == (1, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog, two pizzas", (2, 2)),
        ("two wine glasses, dog", (1, 2)),
        ("nothing", (0, 0)),
        ("dog, dog, whatever", (1, 2)),
        ("", (0, 0)),
    ],
)
def test_names_in_a_list_are_found(text, expected):
    assert names_in(text, ["dog", "pizza"]) == expected


def test_the_calibration_error_is_that_of_what_is_said_and_what_is_so():
    calibrated, overconfident = AnswerScore(), AnswerScore()
    calibrated.probabilities = [(0.75, index < 3) for index in range(4)]
    overconfident.probabilities = [(0.95, index < 2) for index in range(4)]

    assert calibrated.calibration_error == pytest.approx(0)
    assert overconfident.calibration_error == pytest.approx(0.45)


def test_counts_weigh_the_same_for_every_number():
    score = AnswerScore()
    score.counts[1].add(90, 90)
    score.counts[2].add(0, 10)

    assert score.count_accuracy == pytest.approx(0.5)


def test_confusion_is_drawn(tmp_path):
    draw_confusion(
        Counter({("dog", "dog"): 3, ("dog", "fox"): 1, ("cat", "zebra"): 1}), tmp_path / "names.png"
    )

    assert (tmp_path / "names.png").stat().st_size > 10_000


def test_boxes_overlap():
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 1, 1), (0.5, 0, 1.5, 1)) == pytest.approx(1 / 3)
    assert iou((0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1)) == 0


def test_a_model_for_boxes_alone_is_not_asked_questions(tmp_path):
    assert not can_answer(Runtime.from_folder(SHAPES_MODEL))
    assert can_answer(Runtime.from_folder(checkpoint_with_text(tmp_path)))
