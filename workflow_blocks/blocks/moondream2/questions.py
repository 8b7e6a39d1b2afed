"""Questions and settings: their types, and how values that arrive at run time are read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown
from workflow_blocks.blocks.common.manifest_fields import NUMBERS_ONLY, Fix, Flag, checked
from workflow_blocks.blocks.common.names import not_blank
from workflow_blocks.blocks.common.prompts import (
    ClassesOrPrompts,
    Prompt,
    PromptClasses,
    PromptList,
    is_none_of_image,
    prompt_classes,
    value_of_image,
)
from workflow_blocks.blocks.moondream2.tasks import CLASS_PLACE, GROUNDING, LOCATING, TASKS

MAX_QUESTIONS = 64
MAX_QUESTION_LENGTH = 1000
MAX_NAME_LENGTH = 64
MAX_TOKENS = 2048
MAX_SEED = 2**32 - 1
# What applies where the task does not read these settings.
_UNREAD = {"parse_as": "text", "reasoning": False, "replace_class": False}
# Of the attribute with an answer's probability.
PROBABILITY_SUFFIX = "_probability"

_Item = TypeVar("_Item")


Question = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_QUESTION_LENGTH, pattern=r"\S"),
    Fix(
        f"give a question (1 to {MAX_QUESTION_LENGTH} characters, not all blank), a list of 1 to "
        f"{MAX_QUESTIONS}, or a dictionary of names with a question each"
    ),
]
# Of questions; in a manifest also of selectors.
QuestionList = Annotated[list[_Item], Field(min_length=1, max_length=MAX_QUESTIONS)]
# Without a pattern: with one, the engine finds no selectors in the dictionary.
_Name = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=MAX_NAME_LENGTH), AfterValidator(not_blank)
]
NamedQuestions = Annotated[dict[_Name, _Item], Field(min_length=1, max_length=MAX_QUESTIONS)]

ParseAs = Annotated[
    Literal["text", "list", "number", "boolean"], Fix("give 'text', 'list', 'number' or 'boolean'")
]
MaxTokens = Annotated[
    int, Field(strict=True, ge=1, le=MAX_TOKENS), Fix(f"give a whole number from 1 to {MAX_TOKENS}")
]
Temperature = Annotated[
    float, Field(ge=0, le=2, allow_inf_nan=False), NUMBERS_ONLY, Fix("give a number from 0 to 2")
]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED), Fix(f"give a whole number from 0 to {MAX_SEED}")]


class TextSettings(BaseModel):
    """How the model writes, and how its answers are read."""

    model_config = ConfigDict(frozen=True)

    parse_as: ParseAs
    reasoning: Flag
    max_tokens: MaxTokens
    temperature: Temperature
    seed: Seed
    replace_class: Flag

    def read_by(self, task_type: str) -> "TextSettings":
        """Without what the task does not read: an editor keeps values when the task changes."""
        fields = TASKS[task_type].fields
        unread = {name: value for name, value in _UNREAD.items() if name not in fields}
        return self.model_copy(update=unread)


class _Fields(BaseModel):
    prompt: Question | QuestionList[Question] | NamedQuestions[Question]


@dataclass(frozen=True)
class Asked:
    """What is asked about one image.

    Attributes:
        questions: the questions; in multi-label classification one for each class.
        names: of the questions, where `prompt` is a dictionary.
        is_single: whether `prompt` is one text, so that its answer is no list.
        classes: the given classes; none if the task has none.
        prompts: what finds each class in detection and pointing; a class is its own prompt unless it has
            others.
        template: of multi-label classification, the given question with the place of the class.
    """

    questions: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    is_single: bool = True
    classes: tuple[str, ...] = ()
    prompts: PromptClasses = field(default_factory=lambda: PromptClasses({}), hash=False)
    template: str | None = None

    def shaped(self, values: Sequence[Any]) -> Any:
        """A value for each question, in the form of `prompt`: one value, a list, or a dictionary."""
        if self.names is not None:
            return dict(zip(self.names, values, strict=True))
        return values[0] if self.is_single else list(values)

    @property
    def suffixes(self) -> list[str]:
        """What tells the questions apart in the names of attributes."""
        if self.names is not None:
            return [f"_{name}" for name in self.names]
        return [""] if self.is_single else [f"_{number}" for number in range(1, len(self.questions) + 1)]


def asked_of_images(task_type: str, prompt: Any, classes: Any, n_images: int) -> list[Asked]:
    """What is asked about each image, from what the engine passes to `run`.

    An image may have an empty list of its own to locate: nothing is asked about it.

    Raises:
        InvalidInputError: a required field is empty, or a value cannot be used.
    """
    return [
        Asked()
        if task_type in LOCATING and is_none_of_image(classes, index)
        else parse_asked(task_type, value_of_image(prompt, index), value_of_image(classes, index))
        for index in range(n_images)
    ]


def parse_asked(task_type: str, prompt: Any, classes: Any) -> Asked:
    """What a task asks, from the values of `prompt` and `classes` for one image.

    Raises:
        InvalidInputError: see `asked_of_images`.
    """
    task = TASKS[task_type]
    given = {"prompt": prompt, "classes": classes}
    for name in given.keys() & set(task.required):
        if given[name] is None:
            raise InvalidInputError(f"`{name}` is empty; give it, because the task {task_type!r} needs it")
    if task_type in LOCATING:
        prompts = prompt_classes(checked(_ClassesWithPrompts, classes=classes).classes)
        return Asked(classes=tuple(prompts.names), prompts=prompts)
    names = _parse_classes(classes) if "classes" in task.fields else ()
    if task_type.endswith("classification") and task_type != "multi-label-classification" and len(names) < 2:
        raise InvalidInputError(f"`classes` is {shown(classes)}; give at least two different classes")
    if "prompt" not in task.fields or prompt is None:
        return Asked(_default_questions(task_type, names), classes=names)
    value = checked(_Fields, prompt=prompt).prompt
    if isinstance(value, str):
        return Asked(_filled(task_type, value, names), classes=names, template=value)
    if not task.takes_many:
        raise InvalidInputError(f"`prompt` is {shown(prompt)}; give one question for the task {task_type!r}")
    question_names = tuple(value) if isinstance(value, dict) else None
    for name in question_names or ():
        if GROUNDING in task.required and f"{name}{PROBABILITY_SUFFIX}" in value:
            raise InvalidInputError(
                f"`prompt` has the names {name!r} and {name + PROBABILITY_SUFFIX!r}; give the second another "
                "name, since the probability of the first answer has it"
            )
    questions = value.values() if isinstance(value, dict) else value
    return Asked(tuple(questions), question_names, is_single=False, classes=names)


def _filled(task_type: str, question: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The question; for several labels, one for each class."""
    if task_type != "multi-label-classification":
        return (question,)
    if CLASS_PLACE not in question:
        raise InvalidInputError(
            f"`prompt` is {shown(question)}; give a question with {CLASS_PLACE} in the place of the class, "
            f"such as 'Is there a {CLASS_PLACE} in the image?'"
        )
    return tuple(question.replace(CLASS_PLACE, name) for name in classes)


def _default_questions(task_type: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    if task_type == "multi-label-classification":
        return tuple(f"Is there a {name} in the image?" for name in classes)
    if task_type == "classification":
        return (f"Which of these is in the image: {_joined(classes)}?",)
    if task_type == "detection-grounded-classification":
        return (f"Which of these is it: {_joined(classes)}?",)
    return ("List the objects in the picture.",) if task_type == "object-detection" else ()


def _joined(classes: tuple[str, ...]) -> str:
    return f"{', '.join(classes[:-1])} or {classes[-1]}"


class _ClassesWithPrompts(BaseModel):
    classes: ClassesOrPrompts


class _Classes(BaseModel):
    classes: Prompt | PromptList[Prompt]


def _parse_classes(value: Any) -> tuple[str, ...]:
    """Different class names, by the rules of the detection block's prompts."""
    if isinstance(value, dict):
        raise InvalidInputError(
            f"`classes` is {shown(value)}; give a list such as ['dog', 'cat']: only detection and pointing "
            "have prompts for a class"
        )
    classes = checked(_Classes, classes=value).classes
    return (classes,) if isinstance(classes, str) else tuple(classes)
