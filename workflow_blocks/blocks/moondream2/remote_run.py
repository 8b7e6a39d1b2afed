"""Runs the tasks of the block on another server that has this plugin: one request for each image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat

from workflow_blocks.blocks.common.client_errors import UnavailableError
from workflow_blocks.blocks.common.detections import MAX_DETECTIONS
from workflow_blocks.blocks.common.remote import has_plugin, parsed
from workflow_blocks.blocks.common.remote_detection import (
    FORWARDED_STEP,
    UNKNOWN_CLASSES,
    RemoteBoxes,
    base64_input,
    detect_remotely,
    in_parallel,
)
from workflow_blocks.blocks.common.remote_http import RemoteServer
from workflow_blocks.blocks.moondream2.questions import Asked, TextSettings
from workflow_blocks.blocks.moondream2.results import Box, FoundPoints, ImageResult, TextAnswer
from workflow_blocks.blocks.moondream2.tasks import TASKS

BLOCK_TYPE = "workflow_blocks/moondream2@v1"
_OUTPUTS = ("predictions", "output", "probability", "cut_short", "classes", "reasoning", "error_status")
_WITHOUT_PLUGIN = "it is asked for detections only. Install this plugin there for other tasks."
# The other server returns everything; this server applies the limits.
_NO_LIMITS: dict[str, Any] = {"confidence": 0.0, "max_detections": MAX_DETECTIONS, "iou_threshold": 1.0}


@dataclass(frozen=True)
class RemoteRun:
    """One task on a batch of images, all with the same settings. `images` are JPEG or PNG as base64."""

    server: RemoteServer
    task_type: str
    settings: TextSettings
    model_version: str

    def __call__(
        self,
        images: Sequence[str],
        asked: Sequence[Asked],
        boxes: Sequence[Sequence[Box]],
        sizes: Sequence[tuple[int, int]],
    ) -> list[ImageResult]:
        """Runs the task. Requests run in parallel, as many as the engine allows for a step.

        Args:
            images: encoded images.
            asked: what is asked about each image.
            boxes: of grounded tasks, the boxes of each image, all inside it.
            sizes: height and width of each image.

        Raises:
            InvalidInputError: the server rejects the model, an image or a question.
            UnavailableError: the server does not have this block, cannot be reached, is too slow, or gives an
                unusable answer.
        """
        if self.task_type == "open-vocabulary-object-detection":
            prompts = [of_image.prompts.prompts for of_image in asked]
            found = detect_remotely(self.server, images, prompts, self.model_version)
            return [ImageResult(found=of_image) for of_image in found]
        if not has_plugin(self.server, self._definition(), BLOCK_TYPE, _WITHOUT_PLUGIN):
            raise UnavailableError(
                f"`task_type` is {self.task_type!r}, and {self.server.name} does not have the block "
                f"{BLOCK_TYPE}; install this plugin there, or let this server run the model (without "
                "MOONDREAM2_API_URL and remote execution)",
                501,
            )
        requests: list[Callable[[], ImageResult]] = [
            partial(self._ask, *of_image) for of_image in zip(images, asked, boxes, sizes, strict=True)
        ]
        return in_parallel(self.server, requests)

    def _ask(self, image: str, asked: Asked, boxes: Sequence[Box], size: tuple[int, int]) -> ImageResult:
        if self._is_grounded and not boxes:
            return ImageResult()
        if self.task_type == "pointing" and not asked.classes:
            return ImageResult(points=FoundPoints.none())
        inputs: dict[str, Any] = {"image": base64_input(image), "model_version": self.model_version}
        classes = {name: list(own) for name, own in asked.prompts.by_name.items()} or list(asked.classes)
        values: dict[str, Any] = {"prompt": self._prompt(asked), "classes": classes}
        inputs |= {name: value for name, value in values.items() if name in self._fields}
        if self._is_grounded:
            inputs["boxes"] = [_serialised(boxes, *size)]
        body = {"specification": self._definition(), "inputs": inputs}
        answer = self.server.post("/workflows/run", body)
        return self._result(answer, asked, len(boxes))

    def _prompt(self, asked: Asked) -> str | list[str] | None:
        """The questions, as a list wherever the task takes one, so that the answers are a list."""
        if TASKS[self.task_type].takes_many:
            return list(asked.questions)
        if self.task_type == "multi-label-classification":
            return asked.template
        return asked.questions[0] if asked.questions else None

    @property
    def _is_grounded(self) -> bool:
        return self.task_type.startswith("detection-grounded")

    @property
    def _fields(self) -> tuple[str, ...]:
        return TASKS[self.task_type].fields

    def _definition(self) -> dict[str, Any]:
        """A workflow of the block alone, which reads nothing from the answers and drops no box."""
        settings = self.settings.model_dump() | {"parse_as": "text", "replace_class": False} | _NO_LIMITS
        inputs = [name for name in ("prompt", "classes") if name in self._fields] + ["model_version"]
        step = {
            "type": BLOCK_TYPE,
            "name": FORWARDED_STEP,
            "images": "$inputs.image",
            "task_type": self.task_type,
            **{name: value for name, value in settings.items() if name in self._fields},
            **{name: f"$inputs.{name}" for name in inputs},
        }
        declared: list[dict[str, Any]] = [{"type": "WorkflowParameter", "name": name} for name in inputs]
        if self._is_grounded:
            step["grounding_detection"] = "$inputs.boxes"
            kind = ["object_detection_prediction"]
            declared.append({"type": "WorkflowBatchInput", "name": "boxes", "kind": kind})
        return {
            "version": "1.0",
            "inputs": [{"type": "WorkflowImage", "name": "image"}, *declared],
            "steps": [step],
            "outputs": [
                {"type": "JsonField", "name": name, "selector": f"$steps.{FORWARDED_STEP}.{name}"}
                for name in _OUTPUTS
            ],
        }

    def _result(  # noqa: PLR0911 - one for each form of outputs
        self, answer: Any, asked: Asked, n_boxes: int
    ) -> ImageResult:
        if self.task_type == "classification":
            return ImageResult(scores=self._scores(self._parsed(_Classification, answer), asked))
        if self.task_type == "multi-label-classification":
            return ImageResult(scores=self._scores(self._parsed(_Labels, answer), asked))
        if self.task_type == "pointing":
            return ImageResult(points=self._points(self._parsed(_Boxes, answer).predictions, asked))
        if self.task_type == "object-detection":
            return self._everything(self._parsed(_Everything, answer))
        if self.task_type == "detection-grounded-classification":
            chosen = self._parsed(_Texts, answer)
            if not set(chosen.output) <= set(asked.classes):
                raise self.server.unavailable(UNKNOWN_CLASSES)
            return ImageResult(self._answers(chosen.output, chosen.probability, None, None, n_boxes))
        if self._is_grounded:
            rows = self._parsed(_Rows, answer)
            output, probability, cut, reasoning = (
                None if values is None else list(chain.from_iterable(values))
                for values in (rows.output, rows.probability, rows.cut_short, rows.reasoning)
            )
            count = n_boxes * len(asked.questions)
            return ImageResult(self._answers(output or [], probability or [], reasoning, cut, count))
        if TASKS[self.task_type].caption_length:
            text = self._parsed(_Text, answer)
            return ImageResult([TextAnswer(text.output, text.probability, is_cut=text.cut_short)])
        several = self._parsed(_Texts, answer)
        return ImageResult(
            self._answers(
                several.output,
                several.probability,
                several.reasoning,
                several.cut_short,
                len(asked.questions),
            )
        )

    def _parsed(self, model: type["_Answer"], answer: Any) -> Any:
        outputs = parsed(self.server, _WorkflowAnswer, answer, "one of this task").outputs
        return parsed(self.server, model, outputs[0], "one of this task")

    def _answers(
        self,
        texts: Sequence[str],
        probabilities: Sequence[float],
        reasoning: Sequence["_Reasoning"] | None,
        cut_short: Sequence[bool] | None,
        count: int,
    ) -> list[TextAnswer]:
        thoughts = [None] * count if reasoning is None else [one.model_dump() for one in reasoning]
        are_cut = [False] * count if cut_short is None else cut_short
        if not len(texts) == len(probabilities) == len(thoughts) == len(are_cut) == count:
            raise self.server.unavailable(f"gave {len(texts)} answers to {count} questions")
        return list(map(TextAnswer, texts, probabilities, thoughts, are_cut))

    def _scores(self, found: "_Classification | _Labels", asked: Asked) -> list[float]:
        if set(found.scores) != set(asked.classes):
            raise self.server.unavailable(UNKNOWN_CLASSES)
        return [found.scores[name] for name in asked.classes]

    def _points(self, boxes: RemoteBoxes, asked: Asked) -> FoundPoints:
        """Key points are the centers of boxes without a size."""
        found = boxes.to_detections(self.server, n_prompts=len(asked.classes))
        if (found.class_id >= len(asked.classes)).any():
            raise self.server.unavailable(UNKNOWN_CLASSES)
        return FoundPoints((found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2, found.class_id, found.confidence)

    def _everything(self, found: "_Everything") -> ImageResult:
        boxes = found.predictions.to_detections(self.server, n_prompts=len(found.classes or ()))
        if (boxes.class_id >= len(found.classes or ())).any():
            raise self.server.unavailable(UNKNOWN_CLASSES)
        answer = TextAnswer(found.output, found.probability, is_cut=found.cut_short)
        return ImageResult([answer], classes=found.classes or (), found=boxes, error=found.error_status)


def _serialised(boxes: Sequence[Box], height: int, width: int) -> dict[str, Any]:
    """Boxes as Inference reads predictions."""
    corners = np.array(boxes, np.float64)
    centers, sizes = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return {
        "image": {"width": width, "height": height},
        "predictions": [
            {
                "x": x,
                "y": y,
                "width": box_width,
                "height": box_height,
                "confidence": 1.0,
                "class": "box",
                "class_id": 0,
                "detection_id": str(number),
            }
            for number, ((x, y), (box_width, box_height)) in enumerate(
                zip(centers.tolist(), sizes.tolist(), strict=True)
            )
        ],
    }


_Probability = Annotated[float, Field(ge=0, le=1)]


class _WorkflowAnswer(BaseModel):
    outputs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1)]


class _Answer(BaseModel):
    """What the tasks have in the outputs of the block."""


class _Text(_Answer):
    output: str
    probability: _Probability
    cut_short: bool = False


class _Point(BaseModel):
    x: FiniteFloat
    y: FiniteFloat


class _Grounding(BaseModel):
    start: int
    end: int
    points: list[_Point]


class _Reasoning(BaseModel):
    text: str
    grounding: list[_Grounding]


class _Texts(_Answer):
    output: list[str]
    probability: list[_Probability]
    cut_short: list[bool] | None = None
    reasoning: list[_Reasoning] | None = None


class _Rows(_Answer):
    """Answers to all questions about each box."""

    output: list[list[str]]
    probability: list[list[_Probability]]
    cut_short: list[list[bool]] | None = None
    reasoning: list[list[_Reasoning]] | None = None


class _Boxes(_Answer):
    predictions: RemoteBoxes


class _Everything(_Boxes, _Text):
    classes: list[str] | None
    error_status: bool


class _Score(BaseModel):
    confidence: _Probability


class _NamedScore(_Score):
    name: str = Field(alias="class")


class _Choice(BaseModel):
    predictions: list[_NamedScore]


class _Classification(_Answer):
    predictions: _Choice

    @property
    def scores(self) -> dict[str, float]:
        return {one.name: one.confidence for one in self.predictions.predictions}


class _Choices(BaseModel):
    predictions: dict[str, _Score]


class _Labels(_Answer):
    predictions: _Choices

    @property
    def scores(self) -> dict[str, float]:
        return {name: one.confidence for name, one in self.predictions.predictions.items()}
