"""Runs the tasks of the block on a model of this server."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_blocks.blocks.common.model_calls import Image, LoadedModel, call_by_group, detect
from workflow_blocks.blocks.moondream2.parsing import NotParsedError, parse_answer
from workflow_blocks.blocks.moondream2.questions import Asked, TextSettings
from workflow_blocks.blocks.moondream2.results import Box, FoundPoints, ImageResult, TextAnswer
from workflow_blocks.blocks.moondream2.tasks import TASKS
from workflow_blocks.moondream2.config import MAX_OBJECTS, STEPS_PER_POINT

YES_OR_NO = ("yes", "no")
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
        """Runs the task.

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
        if self.task_type == "object-detection":
            return list(map(self._find_everything, images, asked))
        if self.task_type.startswith("detection-grounded"):
            return list(map(self._about_boxes, images, asked, boxes))
        return call_by_group(asked, images, self._same_for_all)

    def _same_for_all(self, asked: Asked, images: list[Image]) -> list[ImageResult]:
        if self.task_type == "classification":
            results = self.model.run(
                images, task="classify", questions=list(asked.questions), classes=[list(asked.classes)]
            )
            return [ImageResult(scores=_probabilities(scored)) for (scored,) in results]
        if self.task_type == "multi-label-classification":
            results = self.model.run(
                images,
                task="classify",
                questions=list(asked.questions),
                classes=[list(YES_OR_NO)] * len(asked.questions),
            )
            return [
                ImageResult(scores=[_probabilities(scored)[_POSITIVE] for scored in of_image])
                for of_image in results
            ]
        if self.task_type == "pointing":
            steps = STEPS_PER_POINT * MAX_OBJECTS
            results = self.model.run(images, task="point", classes=list(asked.classes), max_new_tokens=steps)
            return [ImageResult(points=_points(of_image)) for of_image in results]
        if length := TASKS[self.task_type].caption_length:
            results = self.model.run(images, task="describe", length=length, **self._writing)
            return [
                ImageResult([_answer(written, image)]) for written, image in zip(results, images, strict=True)
            ]
        return self._answers(images, asked.questions)

    def _answers(self, images: Sequence[Any], questions: Sequence[str], **places: Any) -> list[ImageResult]:
        results = self.model.run(
            images,
            task="answer",
            questions=list(questions),
            reasoning=self.settings.reasoning,
            **self._writing,
            **places,
        )
        return [
            ImageResult([_answer(written, image) for written in of_image])
            for of_image, image in zip(results, images, strict=True)
        ]

    def _about_boxes(self, image: Image, asked: Asked, boxes: Sequence[Box]) -> ImageResult:
        """Asks every question about every box, all of them together."""
        if not boxes:
            return ImageResult()
        height, width = image.shape[:2]
        scale = (width, height, width, height)
        relative = [tuple(min(1.0, v / s) for v, s in zip(box, scale, strict=True)) for box in boxes]
        questions = list(asked.questions) * len(boxes)
        places = [[box] for box in relative for _ in asked.questions]
        if self.task_type == "detection-grounded-visual-question-answering":
            return self._answers([image], questions, spatial_refs=places)[0]
        (results,) = self.model.run(
            [image],
            task="classify",
            questions=questions,
            classes=[list(asked.classes)] * len(questions),
            spatial_refs=places,
        )
        best = [max(scored, key=lambda choice: choice.probability) for scored in results]
        return ImageResult([TextAnswer(choice.text, choice.probability) for choice in best])

    def _find_everything(self, image: Image, asked: Asked) -> ImageResult:
        """Asks what is there and detects each thing, on the image encoded once."""
        encoded = self.model.run([image], task="encode_images")
        ((written,),) = self.model.run(
            encoded, task="answer", questions=list(asked.questions), **self._writing
        )
        answer = TextAnswer(written.text.strip(), written.probability)
        try:
            names = parse_answer(answer.text, "list")
        except NotParsedError:
            return ImageResult([answer], error=True)
        if not names:
            return ImageResult([answer])
        (found,) = detect(self.model, encoded, [names])
        return ImageResult([answer], classes=names, found=found)

    @property
    def _writing(self) -> dict[str, Any]:
        sampling = (self.settings.temperature, _TOP_P, self.settings.seed)
        return {"max_new_tokens": self.settings.max_tokens, "sampling": sampling}


def _probabilities(scored: Sequence[Any]) -> list[float]:
    return [choice.probability for choice in scored]


def _points(found: Any) -> FoundPoints:
    return FoundPoints(
        xy=found.xy.cpu().numpy().astype(np.float64).reshape(-1, 2),
        class_id=found.class_id.cpu().numpy().astype(np.int64),
        confidence=found.confidence.cpu().numpy().astype(np.float64),
    )


def _answer(written: Any, image: Image) -> TextAnswer:
    return TextAnswer(written.text.strip(), written.probability, _reasoning(written.reasoning, image))


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
