"""The worst mistakes of an evaluation, as pictures with the labels and the detections of their class."""

import base64
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv

from workflow_blocks.evaluation.evaluation import Evaluation
from workflow_blocks.evaluation.metrics import matches
from workflow_blocks.image_files import ImageFileError, read_image_file

N_SHOWN = 12

_SIDE = 360  # pixels
_JPEG_QUALITY = 80
LABEL_COLOUR, DETECTION_COLOUR = "#15803d", "#ea580c"


@dataclass(frozen=True)
class Mistake:
    """A label that was missed (`confidence` is None), or a detection that is no label."""

    image: int
    class_id: int
    box: tuple[float, float, float, float]
    confidence: float | None


def worst_misses(evaluation: Evaluation, count: int = N_SHOWN) -> list[Mistake]:
    """The largest labels that no detection above its class's threshold found, at most one of each image."""
    found = [
        Mistake(index, int(labels.class_id[row]), tuple(labels.xyxy[row].tolist()), None)
        for index, labels in enumerate(evaluation.labels)
        for row in np.flatnonzero(~matches(labels, kept_of(evaluation, index))[0])
    ]
    return _one_of_each_image(sorted(found, key=lambda one: -_area(one)), count)


def worst_false_alarms(evaluation: Evaluation, count: int = N_SHOWN) -> list[Mistake]:
    """The most confident detections that are no label, at most one of each image."""
    found = []
    for index, labels in enumerate(evaluation.labels):
        kept = kept_of(evaluation, index)
        for row in np.flatnonzero(~matches(labels, kept)[1]):
            box = tuple(kept.xyxy[row].tolist())
            found.append(Mistake(index, int(kept.class_id[row]), box, float(kept.confidence[row])))
    return _one_of_each_image(sorted(found, key=lambda one: -(one.confidence or 0)), count)


def kept_of(evaluation: Evaluation, index: int) -> sv.Detections:
    """The detections of an image that reach the thresholds of their classes."""
    thresholds = np.array([one.threshold for one in evaluation.metrics.classes])
    found = evaluation.found[index]
    return found[found.confidence >= thresholds[found.class_id]] if len(found) else found


def picture(evaluation: Evaluation, mistake: Mistake) -> str | None:
    """A data URL: the image with labels and detections of the class, the mistake thick; None without it."""
    try:
        image = read_image_file(evaluation.images[mistake.image])
    except ImageFileError:
        return None
    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    drawn = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    kept = kept_of(evaluation, mistake.image)
    labels = evaluation.labels[mistake.image]
    for detections, colour in ((labels, LABEL_COLOUR), (kept, DETECTION_COLOUR)):
        for box in detections.xyxy[detections.class_id == mistake.class_id]:
            _draw(drawn, box * scale, colour, 2)
    colour = LABEL_COLOUR if mistake.confidence is None else DETECTION_COLOUR
    _draw(drawn, np.array(mistake.box) * scale, colour, 4)
    _, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _draw(image: npt.NDArray[np.uint8], box: npt.NDArray[np.float64], colour: str, thickness: int) -> None:
    """With a white edge, so that it is seen on every colour."""
    x_min, y_min, x_max, y_max = (round(float(value)) for value in box)
    bgr = sv.Color.from_hex(colour).as_bgr()
    for one, width in (((255, 255, 255), thickness + 3), (bgr, thickness)):
        cv2.rectangle(image, (x_min, y_min), (x_max, y_max), one, width)


def _area(mistake: Mistake) -> float:
    x_min, y_min, x_max, y_max = mistake.box
    return (x_max - x_min) * (y_max - y_min)


def _one_of_each_image(mistakes: list[Mistake], count: int) -> list[Mistake]:
    first: dict[int, Mistake] = {}
    for mistake in mistakes:
        first.setdefault(mistake.image, mistake)
    return list(first.values())[:count]
