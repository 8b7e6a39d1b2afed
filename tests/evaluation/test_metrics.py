"""Figures of an evaluation: against pycocotools, against what is known by construction, and bad input."""

import contextlib
import io
import time

import numpy as np
import pytest
import supervision as sv
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from workflow_blocks.evaluation.metrics import average_precisions, curves_of, matches, measure

SIDE = 600


def boxes(rows, confidence=None, crowd=None):
    """Detections of rows (x_min, y_min, x_max, y_max, class id)."""
    table = np.array(rows, float).reshape(-1, 5)
    return sv.Detections(
        xyxy=table[:, :4],
        class_id=table[:, 4].astype(int),
        confidence=None if confidence is None else np.array(confidence, float),
        data={} if crowd is None else {"iscrowd": np.array(crowd, int)},
    )


def random_scenes(seed, n_images=30, n_classes=4, with_crowds=False):
    """Labels, and detections that hit some of them, miss others, and are sometimes of another class."""
    rng = np.random.default_rng(seed)
    labels, found = [], []
    for _ in range(n_images):
        n = int(rng.integers(0, 9))
        corners = rng.uniform(0, SIDE - 120, (n, 2))
        sizes = rng.uniform(8, 120, (n, 2))
        true = np.hstack([corners, corners + sizes])
        classes = rng.integers(0, n_classes, n)
        rows = np.column_stack([true, classes])
        labels.append(boxes(rows, crowd=(rng.random(n) < 0.15) & with_crowds))
        hit = rng.random(n) < 0.8
        moved = true[hit] + rng.normal(0, 6, (int(hit.sum()), 4))
        wrong = rng.random(int(hit.sum())) < 0.15
        own = np.where(wrong, rng.integers(0, n_classes, int(hit.sum())), classes[hit])
        extra = int(rng.integers(0, 6))
        corners = rng.uniform(0, SIDE - 120, (extra, 2))
        noise = np.hstack([corners, corners + rng.uniform(8, 120, (extra, 2))])
        rows = np.vstack(
            [np.column_stack([moved, own]), np.column_stack([noise, rng.integers(0, n_classes, extra)])]
        )
        rows[:, 2:4] = np.maximum(rows[:, 2:4], rows[:, :2] + 1)
        # Few different scores, so that many are equal.
        found.append(boxes(rows, rng.integers(0, 21, len(rows)) / 20))
    return labels, found


def pycocotools_of(labels, found, n_classes):
    """COCO's mAP at 0.5 and over 0.5 to 0.95, and the AP at 0.5 of each class."""
    annotations, results = [], []
    for image_id, (truth, detections) in enumerate(zip(labels, found, strict=True)):
        crowds = truth.data.get("iscrowd", np.zeros(len(truth)))
        for (x0, y0, x1, y1), class_id, crowd in zip(truth.xyxy, truth.class_id, crowds, strict=True):
            entry = {"image_id": image_id, "category_id": int(class_id), "iscrowd": int(crowd)}
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append(
                entry | {"id": len(annotations) + 1, "bbox": box, "area": (x1 - x0) * (y1 - y0)}
            )
        scores = detections.confidence
        for (x0, y0, x1, y1), class_id, score in zip(
            detections.xyxy, detections.class_id, scores, strict=True
        ):
            entry = {"image_id": image_id, "category_id": int(class_id), "score": float(score)}
            results.append(entry | {"bbox": [x0, y0, x1 - x0, y1 - y0]})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": index} for index in range(len(labels))],
            "annotations": annotations,
            "categories": [{"id": index} for index in range(n_classes)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][0, :, :, 0, 2]
    return evaluation.stats[1], evaluation.stats[0], precision.mean(axis=0)


@pytest.mark.parametrize("with_crowds", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_map_equals_that_of_pycocotools(seed, with_crowds):
    labels, found = random_scenes(seed, with_crowds=with_crowds)

    aps, map_50, map_50_95 = average_precisions(labels, found)

    expected_50, expected_50_95, of_classes = pycocotools_of(labels, found, 4)
    assert 0.1 < map_50 < 0.95
    assert map_50 == pytest.approx(expected_50, abs=1e-4)
    assert map_50_95 == pytest.approx(expected_50_95, abs=1e-4)
    assert [aps[index][0] for index in range(4)] == pytest.approx(of_classes.tolist(), abs=1e-4)


def test_setting_many_labels_apart_changes_no_figure(monkeypatch):
    labels, found = random_scenes(5, with_crowds=True)
    names = ["a", "b", "c", "d"]
    expected = measure(names, labels, found)

    monkeypatch.setattr("workflow_blocks.evaluation.metrics.MANY_LABELS", 1)

    metrics = measure(names, labels, found)
    assert (metrics.map_50, metrics.map_50_95) == (expected.map_50, expected.map_50_95)
    for one, other in zip(metrics.classes, expected.classes, strict=True):
        assert (one.ap_50, one.precision, one.recall, one.f1) == (
            other.ap_50,
            other.precision,
            other.recall,
            other.f1,
        )


def test_a_class_without_labels_is_in_no_mean():
    labels, found = random_scenes(7, n_classes=3)
    found = [sv.Detections.merge([one, boxes([(0, 0, 9, 9, 3)], [0.9])]) for one in found]

    metrics = measure(["a", "b", "c", "never"], labels, found)

    assert metrics.map_50 == pytest.approx(pycocotools_of(labels, found, 4)[0], abs=1e-4)
    never = metrics.classes[3]
    assert (never.n_labels, never.ap_50, never.precision, never.recall, never.f1) == (
        0,
        None,
        None,
        None,
        None,
    )


def test_the_best_threshold_gives_the_best_f1_of_all_thresholds():
    labels, found = random_scenes(11)

    metrics = measure(["a", "b", "c", "d"], labels, found)

    for index, one in enumerate(metrics.classes):
        f1s = []
        for threshold in np.arange(0, 1.05, 0.025):
            kept = [image[image.confidence >= threshold] for image in found]
            curves = curves_of(index, labels, kept)
            f1s.append(2 * curves.is_right.sum() / (len(curves.is_right) + one.n_labels))
        assert one.best_f1 == pytest.approx(max(f1s))
        assert one.threshold == one.best_threshold
        assert one.f1 == pytest.approx(one.best_f1, abs=0.02)  # supervision matches boxes in another order
        assert one.f1 == pytest.approx(2 * one.precision * one.recall / (one.precision + one.recall))


def test_given_thresholds_decide_precision_and_recall_but_not_curves():
    labels = [boxes([(0, 0, 10, 10, 0), (50, 50, 60, 60, 0)])]
    found = [boxes([(0, 0, 10, 10, 0), (50, 50, 60, 60, 0), (80, 80, 90, 90, 0)], [0.9, 0.5, 0.4])]

    at_best, strict = (measure(["a"], labels, found, given).classes[0] for given in (None, {"a": 0.7}))

    assert (at_best.best_threshold, at_best.best_f1) == (pytest.approx(0.45), 1.0)
    assert (at_best.precision, at_best.recall, at_best.n_detections) == (1.0, 1.0, 2)
    assert (strict.precision, strict.recall, strict.n_detections) == (1.0, 0.5, 1)
    assert (strict.best_threshold, strict.best_f1) == (at_best.best_threshold, 1.0)
    assert strict.ap_50 == at_best.ap_50


@pytest.mark.parametrize(("lowest", "expected"), [(0.0, 0.15), (0.1, 0.15), (0.2, 0.2), (0.5, 0.3)])
def test_without_a_lower_detection_the_threshold_is_half_of_the_lowest_or_what_was_searched(lowest, expected):
    labels = [boxes([(0, 0, 10, 10, 0)])]
    found = [boxes([(0, 0, 10, 10, 0)], [0.3])]

    (one,) = measure(["a"], labels, found, lowest={"a": lowest}).classes

    assert one.best_threshold == pytest.approx(expected)
    assert (one.best_f1, one.f1, one.n_detections) == (1.0, 1.0, 1)


@pytest.mark.parametrize("many", [1000, 0])
def test_detections_in_a_crowd_are_in_no_figure(monkeypatch, many):
    monkeypatch.setattr("workflow_blocks.evaluation.metrics.MANY_LABELS", many)
    rows = [(0, 0, 10, 10, 0), (40, 40, 100, 100, 0), (0, 0, 10, 10, 1)]
    labels = [boxes(rows, crowd=[0, 1, 0]), boxes([(0, 0, 50, 50, 0)], crowd=[1])]
    of_crowd = [(50, 50, 60, 60, 0), (70, 70, 80, 80, 0)]
    found = [boxes([(0, 0, 10, 10, 0), *of_crowd, (50, 50, 60, 60, 1)], [0.9, 0.8, 0.7, 0.6])]
    found.append(boxes([(5, 5, 20, 20, 0)], [0.95]))

    first, second = (metrics := measure(["a", "b"], labels, found, {"a": 0.5, "b": 0.5})).classes

    assert (first.precision, first.recall, first.f1, first.best_f1) == (1, 1, 1, 1)
    assert second.precision == 0  # the crowd is of another class
    assert metrics.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("offset", [0, 1 / 3, 1234.56])
def test_an_overlap_of_exactly_a_half_is_right_in_all_figures(offset):
    labels = [boxes([(offset, 0, offset + 10, 10, 0)])]
    found = [boxes([(offset, 0, offset + 10, 5, 0)], [0.9])]

    metrics = measure(["a"], labels, found)

    (one,) = metrics.classes
    assert metrics.confusion.tolist() == [[1, 0], [0, 0]]
    assert (one.precision, one.recall, one.best_f1, one.ap_50) == (1, 1, 1, pytest.approx(1))


def test_equal_scores_are_kept_or_dropped_together():
    labels = [boxes([(0, 0, 10, 10, 0)])]
    rows = [(0, 0, 10, 10, 0), (30, 30, 40, 40, 0), (50, 50, 60, 60, 0)]

    one = measure(["a"], labels, [boxes(rows, [0.5, 0.5, 0.5])]).classes[0]

    assert one.best_f1 == pytest.approx(0.5)
    assert one.precision == pytest.approx(1 / 3)


def test_the_confusion_matrix():
    labels = [boxes([(0, 0, 10, 10, 0), (20, 20, 30, 30, 0), (40, 40, 50, 50, 1)])]
    rows = [(0, 0, 10, 10, 0), (20, 20, 30, 30, 1), (80, 80, 90, 90, 1)]

    metrics = measure(["a", "b"], labels, [boxes(rows, [0.9, 0.9, 0.9])], {"a": 0.5, "b": 0.5})

    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_calibration_is_the_share_of_right_detections_in_each_bin():
    rng = np.random.default_rng(0)
    labels, found = [], []
    for _ in range(1000):
        score = rng.random()
        labels.append(boxes([(0, 0, 10, 10, 0)]))
        place = 0 if rng.random() < score else 50
        found.append(boxes([(place, place, place + 10, place + 10, 0)], [score]))

    good = measure(["a"], labels, found).calibration
    sure = [one[:] for one in found]
    for one in sure:
        one.confidence = np.full(len(one), 0.99)
    bad = measure(["a"], labels, sure).calibration

    assert sum(one.count for one in good.bins) == 1000
    assert len(good.bins) == 10
    assert all(abs(one.confidence - one.precision) < 0.15 for one in good.bins)
    assert good.error < 0.05
    assert bad.error == pytest.approx(0.99 - bad.bins[0].precision)
    assert bad.error > 0.4


def test_what_is_in_a_crowd_is_neither_right_nor_wrong():
    labels = [boxes([(0, 0, 10, 10, 0), (40, 40, 100, 100, 0)], crowd=[0, 1])]
    found = [boxes([(0, 0, 10, 10, 0), (50, 50, 60, 60, 0), (200, 200, 210, 210, 0)], [0.9, 0.8, 0.7])]

    curves = curves_of(0, labels, found)
    was_found, is_right = matches(labels[0], found[0])

    assert curves.is_right.tolist() == [True, False]
    assert was_found.tolist() == [True, True]
    assert is_right.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([boxes([])], [boxes([], [])]),
        ([boxes([])], [boxes([(0, 0, 5, 5, 0)], [0.5])]),
        ([boxes([(0, 0, 5, 5, 0)])], [boxes([], [])]),
        ([boxes([(0, 0, 5, 5, 0)], crowd=[1])], [boxes([(0, 0, 5, 5, 0)], [0.5])]),
    ],
)
def test_nothing_to_find_or_nothing_found(labels, found):
    metrics = measure(["a", "b"], labels, found)

    assert [one.best_f1 for one in metrics.classes] == [0, 0]
    assert metrics.confusion.shape == (3, 3)


def test_a_hundred_thousand_labels_on_one_image_take_seconds():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 4000, (100_000, 2))
    rows = np.column_stack([corners, corners + 20, rng.integers(0, 2, 100_000)])
    found = boxes(rows[:100], rng.random(100))
    started = time.process_time()

    metrics = measure(["a", "b"], [boxes(rows)], [found])

    assert time.process_time() - started < 30
    assert sum(one.n_labels for one in metrics.classes) == 100_000
    assert all(one.best_f1 > 0 for one in metrics.classes)
