"""The model class that Inference loads and runs (`model_package.py` builds packages of it)."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from inference_models import Detections
from inference_models.configuration import INFERENCE_MODELS_MOONDREAM2_DEFAULT_MAX_NEW_TOKENS
from inference_models.entities import ImageDimensions
from inference_models.errors import ModelInputError
from inference_models.models.moondream2.moondream2_hf import EncodedImage, Points

from workflow_blocks.inference_host.arguments import (
    GREEDY,
    AnyImages,
    Sampling,
    check_answers,
    check_classes,
    encoded_images,
    input_errors,
    max_objects,
    text_settings,
    with_references,
)
from workflow_blocks.inference_host.images import to_arrays
from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.inference_host.request_log import RequestLog
from workflow_blocks.inference_host.results import to_detections, to_points
from workflow_blocks.moondream2.answers import Answer
from workflow_blocks.moondream2.choices import ScoredChoice
from workflow_blocks.moondream2.config import STEPS_PER_OBJECT, STEPS_PER_POINT
from workflow_blocks.moondream2.prompt_tokens import Box, Point
from workflow_blocks.moondream2.runtime import Query, Question, Runtime

# What a model says of itself, and Inference's own class does not.
RUNTIME = "workflow_blocks"
DEFAULT_MAX_NEW_TOKENS = INFERENCE_MODELS_MOONDREAM2_DEFAULT_MAX_NEW_TOKENS

_Found = TypeVar("_Found")


class Moondream2Model:
    """A Moondream2 with the methods of Inference's own class, `MoonDream2HF`. Threads may share it.

    It differs from that class on purpose: coordinates are not rounded to whole pixels, boxes and points have
    real confidences, and text is greedy unless asked otherwise, so that the same input gives the same result.
    Text is stripped of the blanks around it by `query` and `caption`, and nowhere below them.

    `images` are uint8 arrays (H, W, 3) or tensors (3, H, W), one or a list, or what `encode_images` of this
    model returned. With None, the other arguments are checked, and the result is empty.
    `input_color_format` is "bgr" or "rgb"; by default arrays are BGR and tensors RGB. Invalid
    input, and a skill that the model was not made for, raise `ModelInputError` before the model runs.
    """

    def __init__(self, runtime: Runtime, name: str = "a model") -> None:
        """`name` stands for this model in the log."""
        self._runtime = runtime
        self._name = name

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str,
        device: torch.device | str | None = None,
        local_files_only: bool = True,
        **_: Any,
    ) -> "Moondream2Model":
        """Loads a package folder.

        Args:
            model_name_or_path: the folder.
            device: where to run, unless `MOONDREAM2_DEVICE` says otherwise; the CPU by default.
            local_files_only: has no effect, like all other arguments: nothing is ever downloaded.

        Raises:
            CheckpointError, ConfigError: the package is incomplete or damaged.
            RevisionError: it is of another architecture or revision.
            SettingsError: a `MOONDREAM2_*` variable has an invalid value.
        """
        folder = Path(model_name_or_path)
        return cls(load_runtime(folder, device or "cpu"), folder.name)

    def about(self) -> dict[str, str]:
        """What runs this model: the runtime's name, its device and dtype, and an image's most crops."""
        device, dtype = self._runtime.placement
        return {
            "runtime": RUNTIME,
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "max_crops": str(self._runtime.max_crops),
        }

    def encode_images(self, images: AnyImages, input_color_format: str | None = None) -> list[EncodedImage]:
        """Encodes images, so that several calls can use them; encoded ones are returned as they are."""
        with RequestLog(self._name, "encode", 0) as log:
            chunks = self._encoded_chunks(images, input_color_format, log, keep=True)
            return [image for chunk in chunks for image in chunk]

    def detect(
        self,
        images: AnyImages,
        classes: list[str],
        max_new_tokens: int | None = DEFAULT_MAX_NEW_TOKENS,
        input_color_format: str | None = None,
    ) -> list[Detections]:
        """Finds objects of each class in each image.

        Args:
            images: see the class.
            classes: prompts; a detection's class id is an index into them.
            max_new_tokens: each object of a class takes three, and one is always allowed; at most 50 objects
                of a class are found, also with None.
            input_color_format: see the class.

        Returns:
            For each image its boxes (N, 4) in pixels, clipped to the image, with class ids and
            confidences (N,).
        """
        most = max_objects(max_new_tokens, STEPS_PER_OBJECT)
        runtime = self._runtime
        checks = runtime.check_prompts, runtime.detect
        return self._find("detect", images, input_color_format, classes, most, *checks, to_detections)

    def point(
        self,
        images: AnyImages,
        classes: list[str],
        max_new_tokens: int | None = DEFAULT_MAX_NEW_TOKENS,
        input_color_format: str | None = None,
    ) -> list[Points]:
        """Finds objects of each class in each image, as points; the arguments are those of `detect`.

        Returns:
            For each image its points (N, 2) in pixels, with class ids and confidences (N,). A point takes two
            tokens.
        """
        most = max_objects(max_new_tokens, STEPS_PER_POINT)
        runtime = self._runtime
        checks = runtime.check_points, runtime.point
        return self._find("point", images, input_color_format, classes, most, *checks, to_points)

    def query(
        self,
        images: AnyImages,
        question: str,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        input_color_format: str | None = None,
        *,
        spatial_refs: Sequence[Point | Box] | None = None,
        reasoning: bool = False,
        sampling: Sampling = GREEDY,
    ) -> list[str]:
        """Answers a question about each image.

        Args:
            images: see the class.
            question: the question.
            max_new_tokens: the most tokens of an answer.
            input_color_format: see the class.
            spatial_refs: places that the question is about: points (x, y) or boxes (x_min, y_min, x_max,
                y_max), relative to the image, 0 to 1.
            reasoning: whether the model thinks before it answers; its thoughts are not returned here.
            sampling: how text is drawn; greedy by default.

        Returns:
            An answer for each image, without blanks around it.
        """
        answers = self.answer(
            images,
            [question],
            max_new_tokens,
            input_color_format,
            spatial_refs=None if spatial_refs is None else [spatial_refs],
            reasoning=reasoning,
            sampling=sampling,
        )
        return [answer.text.strip() for (answer,) in answers]

    def answer(
        self,
        images: AnyImages,
        questions: Sequence[str],
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        input_color_format: str | None = None,
        *,
        spatial_refs: Sequence[Sequence[Point | Box]] | None = None,
        reasoning: bool = False,
        sampling: Sampling = GREEDY,
    ) -> list[list[Answer]]:
        """Answers several questions about each image together; `spatial_refs` has a list for each question.

        Returns:
            For each image the answer to each question, with the probabilities of its tokens.
        """
        asked = with_references(questions, spatial_refs)
        settings = text_settings(max_new_tokens, sampling)

        def check() -> None:
            for text, references in asked:
                self._runtime.check_question(text, references, reasoning)

        def answer(questions: Sequence[Question]) -> list[Answer]:
            return self._runtime.query(questions, settings, reasoning)

        return self._ask("answer", images, input_color_format, asked, check, answer)

    def classify(
        self,
        images: AnyImages,
        questions: Sequence[str],
        classes: Sequence[Sequence[str]],
        input_color_format: str | None = None,
        *,
        spatial_refs: Sequence[Sequence[Point | Box]] | None = None,
    ) -> list[list[list[ScoredChoice]]]:
        """Scores given answers (`classes` of each question) rather than writing one.

        Returns:
            For each image and question its classes, in the order given, with their probabilities.
        """
        asked = with_references(questions, spatial_refs)
        check_answers(classes, len(asked))

        def check() -> None:
            for (text, references), of_question in zip(asked, classes, strict=True):
                self._runtime.check_choices(text, references, of_question)

        def score(questions: Sequence[Question]) -> list[list[ScoredChoice]]:
            return self._runtime.score_choices(questions, list(classes) * (len(questions) // len(classes)))

        return self._ask("classify", images, input_color_format, asked, check, score)

    def caption(
        self,
        images: AnyImages,
        length: Literal["normal", "short", "long"] = "normal",
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        input_color_format: str | None = None,
        *,
        sampling: Sampling = GREEDY,
    ) -> list[str]:
        """Describes each image in a text of the given length, without blanks around it."""
        answers = self.describe(images, length, max_new_tokens, input_color_format, sampling=sampling)
        return [answer.text.strip() for answer in answers]

    def describe(
        self,
        images: AnyImages,
        length: Literal["normal", "short", "long"] = "normal",
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        input_color_format: str | None = None,
        *,
        sampling: Sampling = GREEDY,
    ) -> list[Answer]:
        """Like `caption`, with the probabilities of the tokens."""
        settings = text_settings(max_new_tokens, sampling)
        with RequestLog(self._name, "caption", 1) as log:
            with input_errors():
                self._runtime.check_caption(length)
            return [
                answer
                for chunk in self._encoded_chunks(images, input_color_format, log)
                for answer in self._runtime.caption(_own(chunk), length, settings)
            ]

    def _find(
        self,
        task: str,
        images: AnyImages,
        color_format: str | None,
        classes: list[str],
        most: int,
        check: Callable[[list[str], int], None],
        find: Callable[[list[Query], int], list[list[Any]]],
        to_result: Callable[[list[list[Any]], ImageDimensions], _Found],
    ) -> list[_Found]:
        """What `find` finds of all classes in each image, `most` of a class, as one result for each image."""
        check_classes(classes)
        results = []
        with RequestLog(self._name, task, len(classes)) as log:
            with input_errors():
                check(classes, most)
            for chunk in self._encoded_chunks(images, color_format, log):
                found = find([Query(image, name) for image, name in product(_own(chunk), classes)], most)
                of_images = _split(found, len(classes))
                results += [
                    to_result(of_classes, image.image_dimensions)
                    for of_classes, image in zip(of_images, chunk, strict=True)
                ]
        return results

    def _ask(
        self,
        task: str,
        images: AnyImages,
        color_format: str | None,
        asked: Sequence[tuple[str, Sequence[Point | Box]]],
        check: Callable[[], None],
        answer: Callable[[list[Question]], list[_Found]],
    ) -> list[list[_Found]]:
        """The answers to all questions about each image."""
        results = []
        with RequestLog(self._name, task, len(asked)) as log:
            with input_errors():
                check()
            for chunk in self._encoded_chunks(images, color_format, log):
                questions = [Question(image, *words) for image, words in product(_own(chunk), asked)]
                results += _split(answer(questions), len(asked))
        return results

    def _encoded_chunks(
        self, images: AnyImages, color_format: str | None, log: RequestLog, keep: bool = False
    ) -> Iterator[list[EncodedImage]]:
        """Encoded images, as many at a time as the working memory holds, or all if the caller keeps them."""
        if images is None:
            return
        if encoded := encoded_images(images):
            if not all(map(self._runtime.has_encoded, _own(encoded))):
                raise ModelInputError("an image was encoded by another model; encode it with this one")
            log.add_given(len(encoded))
            yield encoded
            return
        arrays, are_bgr = to_arrays(images, color_format)
        at_once = len(arrays) if keep else self._runtime.images_at_once
        for start in range(0, len(arrays), at_once):
            chunk, since = arrays[start : start + at_once], time.perf_counter()
            own_images = self._runtime.encode_images(chunk, are_bgr)
            log.add_encoded(own_images, since)
            yield [
                EncodedImage(own, ImageDimensions(*array.shape[:2]))
                for own, array in zip(own_images, chunk, strict=True)
            ]


def _own(images: Sequence[EncodedImage]) -> list[Any]:
    """The images as the runtime encoded them."""
    return [image.moondream_encoded_image for image in images]


def _split(items: list[_Found], length: int) -> list[list[_Found]]:
    """Lists of equal length, in order."""
    return [items[start : start + length] for start in range(0, len(items), length)]
