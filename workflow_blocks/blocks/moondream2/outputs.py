"""Makes the outputs of the block from what the model said."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import supervision as sv
from inference.core.workflows.execution_engine.constants import (
    KEYPOINTS_CLASS_ID_KEY_IN_SV_DETECTIONS,
    KEYPOINTS_CLASS_NAME_KEY_IN_SV_DETECTIONS,
    KEYPOINTS_CONFIDENCE_KEY_IN_SV_DETECTIONS,
    KEYPOINTS_XY_KEY_IN_SV_DETECTIONS,
)
from inference.core.workflows.execution_engine.entities.base import WorkflowImageData

from workflow_blocks.blocks.common.attributes import ANSWER, attributes_of
from workflow_blocks.blocks.common.data_representation import (
    classification_to_engine,
    key_points_to_engine,
    to_engine,
)
from workflow_blocks.blocks.common.detections import (
    PROMPT_KEY,
    DetectionLimits,
    ImageDetections,
    attach_workflow_data,
    select_detections,
)
from workflow_blocks.blocks.common.prompts import PromptClasses
from workflow_blocks.blocks.moondream2.grounding import (
    ClassIds,
    GroundedBoxes,
    replace_classes,
    with_attributes,
)
from workflow_blocks.blocks.moondream2.parsing import EMPTY, NotParsedError, parse_answer
from workflow_blocks.blocks.moondream2.questions import PROBABILITY_SUFFIX, Asked, TextSettings
from workflow_blocks.blocks.moondream2.results import FoundPoints, ImageResult, TextAnswer
from workflow_blocks.blocks.moondream2.tasks import LOCATING

# A class of a multi-label classification is predicted from this probability on.
LIKELY = 0.5
_EMPTY_OUTPUTS: dict[str, Any] = dict.fromkeys(
    (
        "predictions",
        "output",
        "probability",
        "cut_short",
        "classes",
        "counts",
        "points",
        "attributes",
        "reasoning",
    )
)


def to_outputs(
    task_type: str,
    result: ImageResult,
    image: WorkflowImageData,
    asked: Asked,
    grounded: GroundedBoxes | None,
    limits: DetectionLimits,
    settings: TextSettings,
    class_ids: ClassIds,
) -> dict[str, Any]:
    """The outputs for one image; those that the task does not have are None.

    `class_ids` are those of answers that became classes before.
    """
    inference_id = str(uuid4())
    common = _EMPTY_OUTPUTS | {"error_status": result.error, "inference_id": inference_id}
    if asked.classes or task_type in LOCATING:
        common["classes"] = list(asked.classes)
    if grounded is not None:
        return common | _grounded(task_type, result, asked, grounded, settings, class_ids)
    return common | _of_task(task_type, result, image, asked, limits, settings, inference_id)


def _of_task(
    task_type: str,
    result: ImageResult,
    image: WorkflowImageData,
    asked: Asked,
    limits: DetectionLimits,
    settings: TextSettings,
    inference_id: str,
) -> dict[str, Any]:
    if task_type == "classification":
        return _single_label(result.scores, image, asked, inference_id)
    if task_type == "multi-label-classification":
        return _multi_label(result.scores, image, asked, inference_id)
    if task_type == "open-vocabulary-object-detection":
        return _detections(result, asked.prompts, image, limits, inference_id)
    if task_type == "object-detection":
        (answer,) = result.answers
        own = {
            "classes": list(result.classes),
            "output": answer.text,
            "probability": answer.probability,
            "cut_short": answer.is_cut,
        }
        prompts = PromptClasses({name: (name,) for name in result.classes})
        found = _detections(result, prompts, image, limits, inference_id)
        return found | own | {"attributes": None}
    if result.points is not None:
        return _points(result.points, asked.classes, image, inference_id)
    return _texts(result.answers, asked, settings)


def _texts(answers: Sequence[TextAnswer], asked: Asked, settings: TextSettings) -> dict[str, Any]:
    values, failed = _parsed(answers, settings)
    own = {
        "output": asked.shaped(values),
        "probability": asked.shaped([answer.probability for answer in answers]),
        "cut_short": asked.shaped([answer.is_cut for answer in answers]),
        "error_status": failed,
    }
    if settings.reasoning and all(answer.reasoning is not None for answer in answers):
        own["reasoning"] = asked.shaped([answer.reasoning for answer in answers])
    return own


def _parsed(answers: Sequence[TextAnswer], settings: TextSettings) -> tuple[list[Any], bool]:
    """The values of answers, and whether one of them could not be parsed, so that it is empty.

    Nobody knows how a text that was cut short goes on, so no value is read from it.
    """
    values, failed = [], False
    for answer in answers:
        try:
            if answer.is_cut and settings.parse_as != "text":
                raise NotParsedError(answer.text)
            values.append(parse_answer(answer.text, settings.parse_as))
        except NotParsedError:
            values.append(_empty(settings))
            failed = True
    return values, failed


def _empty(settings: TextSettings) -> Any:
    value = EMPTY[settings.parse_as]
    return list(value) if isinstance(value, list) else value


def _single_label(
    scores: Sequence[float], image: WorkflowImageData, asked: Asked, inference_id: str
) -> dict[str, Any]:
    best = int(np.argmax(scores))
    prediction = _classification(image, inference_id) | {
        "predictions": [
            {"class": name, "class_id": index, "confidence": score}
            for index, (name, score) in enumerate(zip(asked.classes, scores, strict=True))
        ],
        "top": asked.classes[best],
        "confidence": scores[best],
    }
    return {
        "predictions": classification_to_engine(prediction, image, list(asked.classes)),
        "output": asked.classes[best],
        "probability": scores[best],
    }


def _multi_label(
    scores: Sequence[float], image: WorkflowImageData, asked: Asked, inference_id: str
) -> dict[str, Any]:
    likely = {name: score for name, score in zip(asked.classes, scores, strict=True) if score >= LIKELY}
    prediction = _classification(image, inference_id) | {
        "predictions": {
            name: {"confidence": score, "class_id": index}
            for index, (name, score) in enumerate(zip(asked.classes, scores, strict=True))
        },
        "predicted_classes": list(likely),
    }
    return {
        "predictions": classification_to_engine(prediction, image, list(asked.classes)),
        "output": list(likely),
        "probability": list(likely.values()),
    }


def _classification(image: WorkflowImageData, inference_id: str) -> dict[str, Any]:
    height, width = image.numpy_image.shape[:2]
    return {
        "image": {"width": width, "height": height},
        "inference_id": inference_id,
        "parent_id": image.parent_metadata.parent_id,
        "prediction_type": "classification",
    }


def _detections(
    result: ImageResult,
    classes: PromptClasses,
    image: WorkflowImageData,
    limits: DetectionLimits,
    inference_id: str,
) -> dict[str, Any]:
    height, width = image.numpy_image.shape[:2]
    found = result.found or ImageDetections.none()
    detections = select_detections(found, classes, width, height, limits)
    counts = _counts(detections, classes.names)
    detections = attach_workflow_data(detections, image, classes.names, inference_id)
    return {
        "predictions": to_engine(detections),
        "counts": counts,
        "attributes": attributes_of(detections, [PROMPT_KEY]),
    }


def _counts(detections: sv.Detections, classes: Sequence[str]) -> dict[str, int]:
    per_class = np.bincount(np.asarray(detections.class_id, np.int64), minlength=len(classes))
    return dict(zip(classes, per_class.tolist(), strict=True))


def _points(
    found: FoundPoints, classes: Sequence[str], image: WorkflowImageData, inference_id: str
) -> dict[str, Any]:
    """A detection for each point: its box is the point alone, since the model gives no size."""
    names = np.array([classes[index] for index in found.class_id], dtype=object)
    detections = sv.Detections(
        xyxy=np.hstack([found.xy, found.xy]), class_id=found.class_id, confidence=found.confidence
    )
    detections = attach_workflow_data(detections, image, list(classes), inference_id, "keypoint-detection")
    detections[KEYPOINTS_XY_KEY_IN_SV_DETECTIONS] = found.xy[:, np.newaxis].astype(np.float32)
    detections[KEYPOINTS_CONFIDENCE_KEY_IN_SV_DETECTIONS] = found.confidence[:, np.newaxis].astype(np.float32)
    detections[KEYPOINTS_CLASS_ID_KEY_IN_SV_DETECTIONS] = np.zeros((len(names), 1), int)
    detections[KEYPOINTS_CLASS_NAME_KEY_IN_SV_DETECTIONS] = names[:, np.newaxis]
    return {
        "predictions": key_points_to_engine(detections),
        "counts": _counts(detections, classes),
        "points": [{"x": x, "y": y, "positive": True} for x, y in found.xy.tolist()],
    }


def _grounded(
    task_type: str,
    result: ImageResult,
    asked: Asked,
    grounded: GroundedBoxes,
    settings: TextSettings,
    class_ids: ClassIds,
) -> dict[str, Any]:
    """The detections with the answers in their data. Where nothing was asked, the values are empty."""
    is_text = task_type == "detection-grounded-visual-question-answering"
    values, failed = (
        _parsed(result.answers, settings) if is_text else ([a.text for a in result.answers], False)
    )
    empty = _empty(settings) if is_text else ""
    count, n_questions = len(grounded.detections), len(asked.questions)
    columns: dict[str, list[Any]] = {}
    for number, suffix in enumerate(asked.suffixes):
        of_values: list[Any] = [empty] * count
        of_probabilities: list[float | None] = [None] * count
        for place, index in enumerate(grounded.asked):
            row = place * n_questions + number
            of_values[index] = values[row]
            of_probabilities[index] = result.answers[row].probability
        name = f"{ANSWER}{suffix}"
        columns[name] = of_values
        columns[name + PROBABILITY_SUFFIX] = of_probabilities
    detections = with_attributes(grounded.detections, columns)
    attributes = attributes_of(detections, list(columns))
    if settings.replace_class:
        answers = list(map(_class_name, columns[ANSWER]))
        detections = replace_classes(detections, answers, asked.classes, class_ids)
    to_form = key_points_to_engine if KEYPOINTS_XY_KEY_IN_SV_DETECTIONS in detections.data else to_engine
    own = {
        "predictions": to_form(detections),
        "attributes": attributes,
        "output": [_of_box(attribute, asked, "") for attribute in attributes],
        "probability": [_of_box(attribute, asked, PROBABILITY_SUFFIX) for attribute in attributes],
        "error_status": failed or not grounded.all_asked,
    }
    if is_text:
        own["cut_short"] = _by_box([answer.is_cut for answer in result.answers], asked, grounded)
        if settings.reasoning:
            own["reasoning"] = _by_box([answer.reasoning for answer in result.answers], asked, grounded)
    return own


def _by_box(values: Sequence[Any], asked: Asked, grounded: GroundedBoxes) -> list[Any]:
    """What belongs to the answers, for each box in the form of `prompt`; None where nothing was asked."""
    count = len(asked.questions)
    by_box: list[Any] = [None] * len(grounded.detections)
    for place, index in enumerate(grounded.asked):
        by_box[index] = asked.shaped(values[place * count : (place + 1) * count])
    return by_box


def _class_name(value: Any) -> str:
    """An answer as a class; "" without one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _of_box(attributes: dict[str, Any], asked: Asked, ending: str) -> Any:
    return asked.shaped([attributes[f"{ANSWER}{suffix}{ending}"] for suffix in asked.suffixes])
