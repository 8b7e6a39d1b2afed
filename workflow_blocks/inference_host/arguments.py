"""The arguments of the model class, and their checks before the model runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from inference_models.errors import ModelInputError
from inference_models.models.moondream2.moondream2_hf import EncodedImage

from workflow_blocks.inference_host.images import Images
from workflow_blocks.moondream2.answers import TextSettings, TextSettingsError
from workflow_blocks.moondream2.choices import check_choices
from workflow_blocks.moondream2.config import MAX_OBJECTS
from workflow_blocks.moondream2.prompt_tokens import (
    Box,
    Point,
    PromptError,
    SkillError,
    is_whole_number,
    shown,
)

AnyImages: TypeAlias = "Images | EncodedImage | list[EncodedImage] | None"


class Sampling(NamedTuple):
    """How text is drawn: see `TextSettings`. The default takes the most likely token at each step."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Sampling()


@contextmanager
def input_errors() -> Iterator[None]:
    """Errors of the runtime about input, as Inference knows them."""
    try:
        yield
    except (PromptError, SkillError, TextSettingsError) as error:
        raise ModelInputError(str(error)) from error


def max_objects(max_new_tokens: int | None, steps_per_object: int) -> int:
    """How many objects of a class are found at most: at least one."""
    if max_new_tokens is None:
        return MAX_OBJECTS
    _check_max_new_tokens(max_new_tokens)
    return min(MAX_OBJECTS, max(1, max_new_tokens // steps_per_object))


def text_settings(max_new_tokens: int, sampling: Sampling) -> TextSettings:
    _check_max_new_tokens(max_new_tokens)
    if not isinstance(sampling, (tuple, list)) or len(sampling) > len(Sampling._fields):
        raise ModelInputError(
            f"sampling is {shown(sampling)}; give Sampling(temperature, top_p, seed), or leave it out"
        )
    with input_errors():
        return TextSettings(max_new_tokens, *sampling)


def _check_max_new_tokens(max_new_tokens: object) -> None:
    if not is_whole_number(max_new_tokens) or max_new_tokens < 1:  # type: ignore[operator]
        raise ModelInputError(f"max_new_tokens is {shown(max_new_tokens)}; give a whole number from 1")


def check_classes(classes: Sequence[str]) -> None:
    if not isinstance(classes, (list, tuple)) or not classes:
        raise ModelInputError(f"classes is {shown(classes)}; give a list of at least one prompt")
    for prompt in classes:
        if not isinstance(prompt, str) or not prompt.strip():
            raise ModelInputError(f"classes holds {shown(prompt)}; give strings that are not blank")


def check_answers(classes: Sequence[Sequence[str]], n_questions: int) -> None:
    """Checks the classes of each question, of which one is the answer."""
    if not isinstance(classes, (list, tuple)):
        raise ModelInputError(f"classes is {shown(classes)}; give a list of classes for each question")
    if len(classes) != n_questions:
        raise ModelInputError(f"{len(classes)} lists of classes are given for {n_questions} questions")
    with input_errors():
        for of_question in classes:
            check_choices(of_question, "classes")


def with_references(
    questions: Sequence[str], spatial_refs: Sequence[Sequence[Point | Box]] | None
) -> list[tuple[str, Sequence[Point | Box]]]:
    """Each question with its places."""
    if not isinstance(questions, (list, tuple)) or not questions:
        raise ModelInputError(f"questions is {shown(questions)}; give a list of at least one question")
    references: Sequence[Sequence[Point | Box]] = (
        [()] * len(questions) if spatial_refs is None else spatial_refs
    )
    if not isinstance(references, (list, tuple)):
        raise ModelInputError(f"spatial_refs is {shown(spatial_refs)}; give a list for each question")
    if len(references) != len(questions):
        raise ModelInputError(
            f"{len(references)} lists of spatial references are given for {len(questions)} questions"
        )
    return [
        (text, () if places is None else places) for text, places in zip(questions, references, strict=True)
    ]


def encoded_images(images: AnyImages) -> list[EncodedImage]:
    """The images if they are encoded ones; else nothing."""
    if isinstance(images, EncodedImage):
        return [images]
    if isinstance(images, (list, tuple)) and any(isinstance(image, EncodedImage) for image in images):
        if not all(isinstance(image, EncodedImage) for image in images):
            raise ModelInputError("images holds encoded images and others; give images of one form")
        return list(images)
    return []
