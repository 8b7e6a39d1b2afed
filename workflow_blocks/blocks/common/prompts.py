"""Prompts and the classes they stand for: their types, and how values that arrive at run time are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from inference.core.workflows.execution_engine.entities.base import Batch
from inference.core.workflows.prototypes.block import is_workflow_selector
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown
from workflow_blocks.blocks.common.manifest_fields import NUMBERS_ONLY, Fix, checked
from workflow_blocks.blocks.common.names import DIFFERENT_NAMES, NORMALIZED, WITHOUT_REPEATS, not_blank
from workflow_blocks.prompt_text import MAX_PROMPT_LENGTH

MAX_PROMPTS = 64
# In `confidence`, the classes that have no threshold of their own.
OTHER_CLASSES = "*"

_Item = TypeVar("_Item")


def _with_few_prompts(classes: dict[str, Any]) -> dict[str, Any]:
    prompts = [prompt for own in classes.values() for prompt in ([own] if isinstance(own, str) else own)]
    if len(set(prompts)) > MAX_PROMPTS:
        raise ValueError("too many prompts")
    return classes


_FIX = Fix(
    f"give a prompt such as 'red car' (1 to {MAX_PROMPT_LENGTH} Unicode characters, not all blank), "
    f'1 to {MAX_PROMPTS} different prompts, or classes with theirs: {{"helmet": ["hard hat", "helmet"]}}'
)
Prompt = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_PROMPT_LENGTH, pattern=r"\S"),
    NORMALIZED,
    _FIX,
]
# The same as a key, without a pattern: with one, the engine finds no selectors in the dictionary.
ClassName = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_PROMPT_LENGTH),
    AfterValidator(not_blank),
    NORMALIZED,
    _FIX,
]


def _not_a_selector(prompt: str) -> str:
    """The engine resolves no selectors in the lists of a dictionary; they would be searched for as text."""
    if is_workflow_selector(prompt):
        raise ValueError("a selector in a list of a class")
    return prompt


LiteralPrompt = Annotated[Prompt, AfterValidator(_not_a_selector)]
# Of prompts; in a manifest also of selectors.
PromptList = Annotated[list[_Item], WITHOUT_REPEATS, Field(min_length=1, max_length=MAX_PROMPTS)]
# Class name to prompts.
PromptsByClass = Annotated[
    dict[ClassName, _Item],
    Field(min_length=1, max_length=MAX_PROMPTS),
    DIFFERENT_NAMES,
    AfterValidator(_with_few_prompts),
]
Threshold = Annotated[
    float,
    Field(ge=0, le=1, allow_inf_nan=False),
    NUMBERS_ONLY,
    Fix(f'give a number from 0 to 1, or one for each class: {{"helmet": 0.4, "{OTHER_CLASSES}": 0.2}}'),
]
ThresholdsByClass = Annotated[dict[ClassName, Threshold], Field(min_length=1), DIFFERENT_NAMES]


ClassesOrPrompts = Prompt | PromptList[Prompt] | PromptsByClass[Prompt | PromptList[Prompt]]


class _Fields(BaseModel):
    prompts: ClassesOrPrompts


@dataclass(frozen=True)
class PromptClasses:
    """Classes, in the order of their ids, and the prompts that find the objects of each.

    Two classes may share a prompt.
    """

    by_name: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> list[str]:
        return list(self.by_name)

    @property
    def prompts(self) -> list[str]:
        """The different prompts of all classes, in the order in which the model gets them."""
        return list(dict.fromkeys(prompt for prompts in self.by_name.values() for prompt in prompts))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """A class id and the index of a prompt in `prompts`, for each prompt of each class."""
        places = {prompt: index for index, prompt in enumerate(self.prompts)}
        return [
            (class_id, places[prompt])
            for class_id, prompts in enumerate(self.by_name.values())
            for prompt in prompts
        ]


def parse_prompts(value: object) -> PromptClasses:
    """Classes of one prompt, of several prompts, or of a dictionary of class name to prompt or prompts.

    A prompt without a class is its own class. Each is spelled as by `normalized_prompt`. A string is one
    prompt; commas do not split it.

    Raises:
        InvalidInputError: there is no prompt, there are too many, one is blank, too long or not a string, or
            two classes have one name.
    """
    return prompt_classes(checked(_Fields, prompts=value).prompts)


def prompt_classes(prompts: ClassesOrPrompts) -> PromptClasses:
    """See `parse_prompts`, for a value whose type was checked."""
    if isinstance(prompts, str):
        return PromptClasses({prompts: (prompts,)})
    if isinstance(prompts, list):
        return PromptClasses({prompt: (prompt,) for prompt in prompts})
    return PromptClasses(
        {name: (own,) if isinstance(own, str) else tuple(own) for name, own in prompts.items()}
    )


def check_thresholds(confidence: object, classes: Sequence[str], field: str) -> None:
    """Finds misspelt classes among those that have a threshold of their own.

    Raises:
        InvalidInputError: `confidence` names a class that `field` does not have.
    """
    if not isinstance(confidence, dict):
        return
    unknown = [name for name in confidence if name not in (*classes, OTHER_CLASSES)]
    if unknown:
        raise InvalidInputError(
            f"`confidence` has a threshold for {shown(unknown[0])}; give the names of classes of `{field}`: "
            f"{shown(list(classes))}, or '{OTHER_CLASSES}'"
        )


def prompts_of_images(prompts: Any, n_images: int) -> list[PromptClasses]:
    """Each image's classes and prompts, from what the engine passes to `run`.

    An image may have an empty list of its own, such as what a model that sees nothing names: no classes.

    Args:
        prompts: a batch with one value for each image, or, where the definition has a list or a dictionary,
            a literal or such a batch at each place.
        n_images: how many images there are.

    Raises:
        InvalidInputError: see `parse_prompts`.
    """
    return [
        PromptClasses({})
        if is_none_of_image(prompts, index)
        else parse_prompts(value_of_image(prompts, index))
        for index in range(n_images)
    ]


def is_none_of_image(value: Any, index: int) -> bool:
    """Whether a field has a value for each image, and that of this image is an empty list."""
    return isinstance(value, Batch) and isinstance(value[index], list) and not value[index]


def value_of_image(value: Any, index: int) -> Any:
    """The part of a field's value that is for one image: batches have a value for each."""
    if isinstance(value, Batch):
        return value[index]
    if isinstance(value, list):
        return [value_of_image(entry, index) for entry in value]
    if isinstance(value, dict):
        return {name: value_of_image(entry, index) for name, entry in value.items()}
    return value
