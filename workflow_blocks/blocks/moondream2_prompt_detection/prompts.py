"""Prompts: their types, and how prompts that arrive at run time are read."""

from typing import Annotated, Any, TypeVar

from inference.core.workflows.execution_engine.entities.base import Batch
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints

from workflow_blocks.blocks.common.manifest_fields import Fix, checked
from workflow_blocks.blocks.common.prompts import normalised

MAX_PROMPTS = 64
MAX_PROMPT_LENGTH = 256

_Item = TypeVar("_Item")


def _stripped(value: object) -> object:
    return normalised(value) if isinstance(value, str) else value


def _without_repeats(items: list[_Item]) -> list[_Item]:
    return list(dict.fromkeys(items))


Prompt = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_PROMPT_LENGTH, pattern=r"\S"),
    BeforeValidator(_stripped),
    Fix(
        f"give a prompt such as 'red car' (1 to {MAX_PROMPT_LENGTH} Unicode characters, not all blank) "
        f"or a list of 1 to {MAX_PROMPTS} prompts"
    ),
]
# Of prompts; in a manifest also of selectors.
PromptList = Annotated[
    list[_Item], AfterValidator(_without_repeats), Field(min_length=1, max_length=MAX_PROMPTS)
]


class _Fields(BaseModel):
    prompts: Prompt | PromptList[Prompt]


def parse_prompts(value: object) -> list[str]:
    """One prompt or several to a list of distinct prompts without surrounding whitespace.

    A string is one prompt; commas do not split it.

    Raises:
        InvalidInputError: there is no prompt, there are too many, or one is blank, too long or not a string.
    """
    prompts = checked(_Fields, prompts=value).prompts
    return [prompts] if isinstance(prompts, str) else prompts


def prompts_of_images(prompts: Any, n_images: int) -> list[list[str]]:
    """Each image's prompts, from what the engine passes to `run`.

    Args:
        prompts: a batch with one value for each image, or, where the definition has a list with selectors,
            a list with a literal or such a batch at each place.
        n_images: how many images there are.

    Raises:
        InvalidInputError: see `parse_prompts`.
    """
    if isinstance(prompts, list):
        return [
            parse_prompts([entry[index] if isinstance(entry, Batch) else entry for entry in prompts])
            for index in range(n_images)
        ]
    return [parse_prompts(value) for value in prompts]
