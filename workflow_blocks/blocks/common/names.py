"""What fields of prompts and fields of class names check alike."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import AfterValidator, BeforeValidator

from workflow_blocks.prompt_text import normalized_prompt

_Item = TypeVar("_Item")


def _normalized(value: object) -> object:
    return normalized_prompt(value) if isinstance(value, str) else value


def not_blank(name: str) -> str:
    if not name.strip():
        raise ValueError("a blank name")
    return name


def _without_repeats(items: list[_Item]) -> list[_Item]:
    return list(dict.fromkeys(items))


def _with_different_names(classes: object) -> object:
    """Refuses names that differ only in blanks: normalized, one of them would silently be lost."""
    if isinstance(classes, Mapping) and len({_normalized(name) for name in classes}) < len(classes):
        raise ValueError("two classes of one name")
    return classes


# A text as `normalized_prompt` spells it.
NORMALIZED = BeforeValidator(_normalized)
WITHOUT_REPEATS = AfterValidator(_without_repeats)
# A dictionary whose keys differ in more than blanks.
DIFFERENT_NAMES = BeforeValidator(_with_different_names)
