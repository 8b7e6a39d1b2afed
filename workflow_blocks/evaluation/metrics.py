"""What detections are worth, by their agreement with labels: figures for each class and for all.

A detection is right if it overlaps a label of its class by an IoU of at least 0.5. Each label is found once,
by the most confident detection. supervision computes what it has a metric for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import supervision as sv
from supervision.metrics import F1Score, MeanAveragePrecision, Precision, Recall

MIN_IOU = 0.5
N_CALIBRATION_BINS = 10
# Of one image: from here on, labels that no detection overlaps are set apart.
MANY_LABELS = 1000

_ROUNDING = 0.01
# supervision's confusion matrix takes pairs above a limit; its other metrics take those that reach it.
_BELOW_MIN_IOU = float(np.nextafter(np.float32(MIN_IOU), np.float32(0)))

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """What the detections of a class with at least some confidence are worth, for each confidence.

    Arrays (N,), by falling confidence; `is_right` says whether the detection of this confidence is right.
    """

    confidence: _Floats
    precision: _Floats
    recall: _Floats
    f1: _Floats
    is_right: npt.NDArray[np.bool_]

    def best(self, lowest: float = 0.0) -> tuple[float, float]:
        """The threshold with the highest F1, and that F1; 0 and 0 without a right detection.

        The threshold lies midway between the last detection that it keeps and the next one. Without a next
        one it is half of the last one's confidence, because such objects may have a lower one in other
        images; but at least `lowest`, below which nothing was searched for.
        """
        if not len(self.f1) or not self.f1.max() > 0:
            return 0.0, 0.0
        index = int(self.f1.argmax())
        kept = self.confidence[index]
        below = self.confidence[self.confidence < kept]
        if len(below):
            return float((kept + below[0]) / 2), float(self.f1[index])
        return float(min(kept, max(kept / 2, lowest))), float(self.f1[index])


@dataclass(frozen=True)
class ClassMetrics:
    """What was measured of one class. What cannot be computed without labels is None.

    `precision`, `recall` and `f1` are those of the detections with a confidence of at least `threshold`.
    """

    name: str
    n_labels: int
    n_detections: int
    threshold: float
    ap_50: float | None
    ap_50_95: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    best_threshold: float
    best_f1: float
    curves: Curves


@dataclass(frozen=True)
class CalibrationBin:
    """Detections whose confidence is in one interval: how many, their mean confidence, the share of right."""

    count: int
    confidence: float
    precision: float


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from the share of right detections; `error` is the mean, weighted by count."""

    bins: list[CalibrationBin]
    error: float | None


@dataclass(frozen=True)
class Metrics:
    """What was measured. `confusion` is (C + 1, C + 1), label by detection; the last is none."""

    map_50: float | None
    map_50_95: float | None
    classes: list[ClassMetrics]
    confusion: npt.NDArray[np.int64]
    calibration: Calibration


def measure(
    class_names: Sequence[str],
    labels: Sequence[sv.Detections],
    found: Sequence[sv.Detections],
    thresholds: dict[str, float] | None = None,
    lowest: dict[str, float] | None = None,
) -> Metrics:
    """Compares detections with labels.

    Args:
        class_names: the classes that class ids index.
        labels: of each image; `data["iscrowd"]` marks boxes of many objects, which need not be found.
        found: of each image, with confidences; all of them, so that curves are complete.
        thresholds: of classes, for precision, recall, F1 and the confusion matrix; by default the best ones.
        lowest: of classes, the confidence below which nothing was searched for; by default 0.
    """
    without_crowds = _without_crowds(labels)
    aps, map_50, map_50_95 = average_precisions(labels, found)
    curves = [curves_of(index, labels, found) for index in range(len(class_names))]
    best = [one.best((lowest or {}).get(name, 0.0)) for name, one in zip(class_names, curves, strict=True)]
    own = [(thresholds or {}).get(name, one[0]) for name, one in zip(class_names, best, strict=True)]
    kept = [_at_thresholds(detections, np.array(own)) for detections in found]
    counted = [_that_count(image, detections) for image, detections in zip(labels, kept, strict=True)]
    at_threshold = _at_threshold(without_crowds, counted)
    classes = []
    for index, (name, one) in enumerate(zip(class_names, curves, strict=True)):
        n_labels = sum(int((_class_ids(image) == index).sum()) for image in without_crowds)
        precision, recall, f1 = at_threshold[index] if n_labels else (None, None, None)
        ap_50, ap_50_95 = aps.get(index, (None, None))
        classes.append(
            ClassMetrics(
                name=name,
                n_labels=n_labels,
                n_detections=sum(int((_class_ids(image) == index).sum()) for image in kept),
                threshold=own[index],
                ap_50=ap_50,
                ap_50_95=ap_50_95,
                precision=precision,
                recall=recall,
                f1=f1,
                best_threshold=best[index][0],
                best_f1=best[index][1],
                curves=one,
            )
        )
    confusion = sv.ConfusionMatrix.from_detections(
        predictions=counted,
        targets=without_crowds,
        classes=list(class_names),
        conf_threshold=0.0,
        iou_threshold=_BELOW_MIN_IOU,
    )
    matrix = np.asarray(confusion.matrix, np.int64)
    return Metrics(map_50, map_50_95, classes, matrix, calibration_of(curves))


def average_precisions(
    labels: Sequence[sv.Detections], found: Sequence[sv.Detections]
) -> tuple[dict[int, tuple[float, float]], float | None, float | None]:
    """COCO's AP at an IoU of 0.5, and over 0.5 to 0.95, of each class that has labels; and their means."""
    if not any(len(image) for image in _without_crowds(labels)):
        return {}, None, None
    result = MeanAveragePrecision().update(*_pairs(labels, found)).compute()
    rows = zip(result.matched_classes.tolist(), result.ap_per_class, strict=True)
    # -1 marks a class of which all labels are crowds.
    aps = {int(index): (float(row[0]), float(row.mean())) for index, row in rows if row[0] >= 0}
    return aps, float(result.map50), float(result.map50_95)


def _pairs(
    labels: Sequence[sv.Detections], found: Sequence[sv.Detections]
) -> tuple[list[sv.Detections], list[sv.Detections]]:
    """Detections and labels of images, for supervision.

    If an image has many labels, those that no detection overlaps become an image of their own. This changes
    no figure: such labels only count as missed. supervision compares each detection with each label, which
    would take minutes for a hundred thousand labels.
    """
    all_found, all_labels = list(found), list(labels)
    for index in [index for index, image in enumerate(labels) if len(image) > MANY_LABELS]:
        is_met = _is_crowd(labels[index])
        for box in found[index].xyxy:
            ious = np.nan_to_num(sv.box_iou_batch(box[None], labels[index].xyxy)[0])
            is_met |= ious >= MIN_IOU - _ROUNDING
        all_labels[index] = labels[index][is_met]
        all_labels.append(labels[index][~is_met])
        all_found.append(found[index][:0])
    return all_found, all_labels


def curves_of(class_id: int, labels: Sequence[sv.Detections], found: Sequence[sv.Detections]) -> Curves:
    """The curves of one class over all images."""
    scores, rights, n_labels = [np.empty(0)], [np.empty(0, bool)], 0
    for truth, detections in zip(labels, found, strict=True):
        own = truth[_class_ids(truth) == class_id]
        is_crowd = _is_crowd(own)
        n_labels += int((~is_crowd).sum())
        boxes = detections[_class_ids(detections) == class_id]
        if len(boxes):
            boxes = boxes[np.argsort(-boxes.confidence, kind="stable")]
            is_right, counts = _match(boxes.xyxy, own.xyxy[~is_crowd], own.xyxy[is_crowd])
            scores.append(boxes.confidence[counts].astype(np.float64))
            rights.append(is_right[counts])
    confidence, is_right = np.concatenate(scores), np.concatenate(rights)
    order = np.argsort(-confidence, kind="stable")
    confidence, is_right = confidence[order], is_right[order]
    n_right = np.cumsum(is_right)
    precision = n_right / np.arange(1, len(is_right) + 1)
    recall = n_right / n_labels if n_labels else np.zeros(len(is_right))
    f1 = 2 * n_right / (np.arange(1, len(is_right) + 1) + n_labels)
    # A threshold keeps all detections of one confidence or none: their values are those of the last.
    last = np.searchsorted(-confidence, -confidence, side="right") - 1
    return Curves(confidence, precision[last], recall[last], f1[last], is_right)


def calibration_of(curves: Sequence[Curves]) -> Calibration:
    """The calibration of all detections together."""
    confidence = np.concatenate([np.empty(0), *(one.confidence for one in curves)])
    is_right = np.concatenate([np.empty(0, bool), *(one.is_right for one in curves)])
    places = np.minimum((confidence * N_CALIBRATION_BINS).astype(int), N_CALIBRATION_BINS - 1)
    bins = []
    for index in np.unique(places):
        inside = places == index
        bins.append(
            CalibrationBin(
                int(inside.sum()), float(confidence[inside].mean()), float(is_right[inside].mean())
            )
        )
    if not bins:
        return Calibration([], None)
    error = sum(one.count * abs(one.confidence - one.precision) for one in bins) / len(confidence)
    return Calibration(bins, float(error))


def matches(
    labels: sv.Detections, found: sv.Detections
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which labels of an image were found, and which detections are right; crowds count as found."""
    was_found, is_right = _is_crowd(labels), np.zeros(len(found), bool)
    for class_id in np.unique(_class_ids(found)):
        of_class = np.flatnonzero(_class_ids(found) == class_id)
        of_class = of_class[np.argsort(-found.confidence[of_class], kind="stable")]
        own = np.flatnonzero((_class_ids(labels) == class_id) & ~_is_crowd(labels))
        crowds = labels.xyxy[(_class_ids(labels) == class_id) & _is_crowd(labels)]
        partners = _partners(found.xyxy[of_class], labels.xyxy[own])
        was_found[own[partners[partners >= 0]]] = True
        is_right[of_class] = (partners >= 0) | _is_in(found.xyxy[of_class], crowds)
    return was_found, is_right


def _match(
    boxes: npt.NDArray[np.floating], own: npt.NDArray[np.floating], crowds: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which boxes, by falling confidence, are right, and which count: not those in a crowd alone."""
    is_right = _partners(boxes, own) >= 0
    return is_right, is_right | ~_is_in(boxes, crowds)


def _partners(boxes: npt.NDArray[np.floating], own: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The label that each box finds, or -1: the one that it overlaps most among those that are not found."""
    partners = np.full(len(boxes), -1, np.int64)
    if not len(own):
        return partners
    is_free = np.ones(len(own), bool)
    for index, box in enumerate(boxes):
        ious = np.nan_to_num(sv.box_iou_batch(box[None], own)[0]) * is_free
        best = int(ious.argmax())
        if ious[best] >= MIN_IOU:
            partners[index] = best
            is_free[best] = False
    return partners


def _is_in(boxes: npt.NDArray[np.floating], crowds: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Whether at least half of a box is in one of the crowds."""
    if not len(crowds) or not len(boxes):
        return np.zeros(len(boxes), bool)
    low = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 1e-9, None).prod(axis=1)
    return np.asarray((inside / areas[:, None]).max(axis=1) >= MIN_IOU)


def _that_count(labels: sv.Detections, found: sv.Detections) -> sv.Detections:
    """The detections of an image without those that are in a crowd of their class and find no other label."""
    counts = np.ones(len(found), bool)
    for class_id in np.unique(_class_ids(labels)[_is_crowd(labels)]):
        of_class = np.flatnonzero(_class_ids(found) == class_id)
        of_class = of_class[np.argsort(-found.confidence[of_class], kind="stable")]
        own = labels[_class_ids(labels) == class_id]
        is_crowd = _is_crowd(own)
        counts[of_class] = _match(found.xyxy[of_class], own.xyxy[~is_crowd], own.xyxy[is_crowd])[1]
    return found[counts]


def _at_threshold(
    labels: Sequence[sv.Detections], kept: Sequence[sv.Detections]
) -> dict[int, tuple[float, float, float]]:
    """Precision, recall and F1 of each class that has labels."""
    if not any(len(image) for image in labels):
        return {}
    precision, recall, f1 = (
        metric().update(*_pairs(labels, kept)).compute() for metric in (Precision, Recall, F1Score)
    )
    rows = zip(
        precision.matched_classes.tolist(),
        precision.precision_per_class[:, 0].tolist(),
        recall.recall_per_class[:, 0].tolist(),
        f1.f1_per_class[:, 0].tolist(),
        strict=True,
    )
    return {int(class_id): (p, r, f) for class_id, p, r, f in rows}


def _at_thresholds(detections: sv.Detections, thresholds: _Floats) -> sv.Detections:
    return detections[detections.confidence >= thresholds[_class_ids(detections)]]


def _without_crowds(labels: Sequence[sv.Detections]) -> list[sv.Detections]:
    return [image[~_is_crowd(image)] for image in labels]


def _class_ids(detections: sv.Detections) -> npt.NDArray[np.int64]:
    return np.asarray(detections.class_id, np.int64)


def _is_crowd(labels: sv.Detections) -> npt.NDArray[np.bool_]:
    return np.asarray(labels.data.get("iscrowd", np.zeros(len(labels))), bool).copy()
