"""Runs the tasks of the block on a model of this server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_blocks.blocks.common.model_calls import (
    Image,
    LoadedModel,
    call_by_group,
    check_all,
    detect,
    detect_arguments,
)
from workflow_blocks.blocks.moondream2.parsing import NotParsedError, parse_answer, parse_cut_list
from workflow_blocks.blocks.moondream2.points import points_of_classes
from workflow_blocks.blocks.moondream2.questions import Asked, TextSettings
from workflow_blocks.blocks.moondream2.results import Box, FoundPoints, ImageResult, TextAnswer
from workflow_blocks.blocks.moondream2.tasks import TASKS
from workflow_blocks.moondream2.config import MAX_OBJECTS, STEPS_PER_POINT

YES_OR_NO = ("yes", "no")
# What stands for a name and a box that are not known yet.
SOME_OBJECT = "object"
WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
_POSITIVE = 0
_TOP_P = 1.0


@dataclass(frozen=True)
class LocalRun:
    """One task on a batch of images, all with the same settings."""

    model: LoadedModel
    task_type: str
    settings: TextSettings

    def __call__(
        self, images: Sequence[Image], asked: Sequence[Asked], boxes: Sequence[Sequence[Box]]
    ) -> list[ImageResult]:
        """Runs the task. All that is asked is checked before the first image is encoded.

        Args:
            images: uint8 BGR arrays (H, W, 3).
            asked: what is asked about each image.
            boxes: of grounded tasks, the boxes of each image, all inside it.

        Raises:
            ModelInputError: the model does not have the skill, or a text does not fit its context.
        """
        if self.task_type == "open-vocabulary-object-detection":
            found = detect(self.model, images, [one.prompts.prompts for one in asked])
            return [ImageResult(found=of_image) for of_image in found]
        different = list(dict.fromkeys(asked))
        check_all(self.model, [call for one in different for call in self._calls(one)])
        if self.task_type == "object-detection":
            return list(map(self._find_everything, images, asked))
        if self._is_grounded:
            return list(map(self._about_boxes, images, asked, boxes))
        return call_by_group(asked, images, self._same_for_all)

    @property
    def _is_grounded(self) -> bool:
        return self.task_type.startswith("detection-grounded")

    def _calls(self, asked: Asked) -> list[dict[str, Any]]:
        """The arguments of the model's calls about an image, as far as they are known before it answers."""
        if self.task_type == "pointing":
            return [_pointing(asked)] if asked.classes else []
        if self.task_type == "object-detection":
            return [self._answering(asked.questions), detect_arguments([SOME_OBJECT])]
        if self._is_grounded:
            return [self._grounded_call(asked, [WHOLE_IMAGE])]
        return [self._call(asked)]

    def _call(self, asked: Asked) -> dict[str, Any]:
        """The arguments of the model's one call about an image."""
        if self.task_type == "classification":
            return _scoring(asked.questions, [asked.classes])
        if self.task_type == "multi-label-classification":
            return _scoring(asked.questions, [YES_OR_NO] * len(asked.questions))
        if length := TASKS[self.task_type].caption_length:
            return {"task": "describe", "length": length, **self._writing}
        return self._answering(asked.questions)

    def _same_for_all(self, asked: Asked, images: list[Image]) -> list[ImageResult]:
        if self.task_type == "pointing":
            return self._point(asked, images)
        results = self.model.run(images, **self._call(asked))
        if self.task_type == "classification":
            return [ImageResult(scores=_probabilities(scored)) for (scored,) in results]
        if self.task_type == "multi-label-classification":
            return [
                ImageResult(scores=[_probabilities(scored)[_POSITIVE] for scored in of_image])
                for of_image in results
            ]
        if TASKS[self.task_type].caption_length:
            results = [[written] for written in results]
        return [
            ImageResult([_answer(written, image) for written in of_image])
            for of_image, image in zip(results, images, strict=True)
        ]

    def _point(self, asked: Asked, images: list[Image]) -> list[ImageResult]:
        if not asked.classes:
            return [ImageResult(points=FoundPoints.none())] * len(images)
        return [
            ImageResult(points=points_of_classes(_points(found), asked.prompts, *image.shape[1::-1]))
            for found, image in zip(self.model.run(images, **_pointing(asked)), images, strict=True)
        ]

    def _answering(self, questions: Sequence[str], **places: Any) -> dict[str, Any]:
        """Arguments that have the model answer."""
        reasoning = {"reasoning": self.settings.reasoning}
        return {"task": "answer", "questions": list(questions), **reasoning, **self._writing, **places}

    def _grounded_call(self, asked: Asked, relative_boxes: Sequence[Box]) -> dict[str, Any]:
        """Arguments that ask every question about every box, all of them together."""
        questions = list(asked.questions) * len(relative_boxes)
        places = [[box] for box in relative_boxes for _ in asked.questions]
        if self.task_type == "detection-grounded-visual-question-answering":
            return self._answering(questions, spatial_refs=places)
        return _scoring(questions, [asked.classes] * len(questions), spatial_refs=places)

    def _about_boxes(self, image: Image, asked: Asked, boxes: Sequence[Box]) -> ImageResult:
        if not boxes:
            return ImageResult()
        height, width = image.shape[:2]
        scale = (width, height, width, height)
        relative = [tuple(min(1.0, v / s) for v, s in zip(box, scale, strict=True)) for box in boxes]
        (results,) = self.model.run([image], **self._grounded_call(asked, relative))
        if self.task_type == "detection-grounded-visual-question-answering":
            return ImageResult([_answer(written, image) for written in results])
        best = [max(scored, key=lambda choice: choice.probability) for scored in results]
        return ImageResult([TextAnswer(choice.text, choice.probability) for choice in best])

    def _find_everything(self, image: Image, asked: Asked) -> ImageResult:
        """Asks what is there and detects each thing, on the image encoded once."""
        encoded = self.model.run([image], task="encode_images")
        ((written,),) = self.model.run(encoded, **self._answering(asked.questions))
        answer = _answer(written, image)
        try:
            names = parse_cut_list(answer.text) if answer.is_cut else parse_answer(answer.text, "list")
        except NotParsedError:
            return ImageResult([answer], error=True)
        (found,) = detect(self.model, encoded, [names])
        return ImageResult([answer], classes=names, found=found, error=answer.is_cut)

    @property
    def _writing(self) -> dict[str, Any]:
        sampling = (self.settings.temperature, _TOP_P, self.settings.seed)
        return {"max_new_tokens": self.settings.max_tokens, "sampling": sampling}


def _scoring(questions: Sequence[str], classes: Sequence[Sequence[str]], **places: Any) -> dict[str, Any]:
    """Arguments that have the model score the classes of each question."""
    return {
        "task": "classify",
        "questions": list(questions),
        "classes": [list(of_question) for of_question in classes],
        **places,
    }


def _pointing(asked: Asked) -> dict[str, Any]:
    steps = STEPS_PER_POINT * MAX_OBJECTS
    return {"task": "point", "classes": asked.prompts.prompts, "max_new_tokens": steps}


def _probabilities(scored: Sequence[Any]) -> list[float]:
    return [choice.probability for choice in scored]


def _points(found: Any) -> FoundPoints:
    return FoundPoints(
        xy=found.xy.cpu().numpy().astype(np.float64).reshape(-1, 2),
        class_id=found.class_id.cpu().numpy().astype(np.int64),
        confidence=found.confidence.cpu().numpy().astype(np.float64),
    )


def _answer(written: Any, image: Image) -> TextAnswer:
    reasoning = _reasoning(written.reasoning, image)
    return TextAnswer(written.text.strip(), written.probability, reasoning, is_cut=written.p_end is None)


def _reasoning(reasoning: Any, image: Image) -> dict[str, Any] | None:
    """The text, and where in it places of the image are meant, in pixels."""
    if reasoning is None:
        return None
    height, width = image.shape[:2]
    return {
        "text": reasoning.text,
        "grounding": [
            {
                "start": part.start,
                "end": part.end,
                "points": [{"x": x * width, "y": y * height} for x, y in part.points],
            }
            for part in reasoning.grounding
        ],
    }
