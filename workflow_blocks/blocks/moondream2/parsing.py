"""Reads values from answers. What is not surely the value is not taken for it."""

import json
import re
from typing import Any

from workflow_blocks.blocks.common.prompts import MAX_PROMPTS
from workflow_blocks.prompt_text import MAX_PROMPT_LENGTH, normalized_prompt

_NUMBER = re.compile(r"[-+]?(\d+(\.\d+)?|\.\d+|\d{1,3}(,\d{3})+(\.\d+)?)")
_SMALL_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_BOOLEANS = {"yes": True, "true": True, "no": False, "false": False}
# "yes", and "Yes, there is a car".
_BOOLEAN = re.compile(r"(yes|no|true|false)\b\s*([,.;:!].*)?", re.IGNORECASE | re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+")
# "and a dog" and "two dogs" are found by the name alone.
_BEFORE_NAME = re.compile(
    rf"^(?:and\b\s*)?(?:(?:an?|the|some|\d{{1,3}}|{'|'.join(_SMALL_NUMBERS[2:])})\s+)?", re.IGNORECASE
)
_NOTHING = {"none", "nothing"}
EMPTY: dict[str, Any] = {"text": "", "list": [], "number": None, "boolean": None}


class NotParsedError(ValueError):
    """An answer is not of the wanted form."""


def parse_answer(text: str, parse_as: str) -> Any:
    """The value of an answer: a text, a list of different texts, a number (int or float) or a boolean.

    Raises:
        NotParsedError: the answer has another form.
    """
    text = text.strip()
    return text if parse_as == "text" else _PARSERS[parse_as](text)


def _parse_number(text: str) -> int | float:
    text = text.rstrip(".!").strip()
    if text.lower() in _SMALL_NUMBERS:
        return _SMALL_NUMBERS.index(text.lower())
    if not _NUMBER.fullmatch(text):
        raise NotParsedError(text)
    number = float(text.replace(",", ""))
    return int(number) if number.is_integer() else number


def _parse_boolean(text: str) -> bool:
    match = _BOOLEAN.fullmatch(text)
    if match is None:
        raise NotParsedError(text)
    return _BOOLEANS[match[1].lower()]


def _parse_list(text: str) -> list[str]:
    """Different texts of an enumeration or of lines, without bullets, articles and numbers before them."""
    items = list(dict.fromkeys(filter(None, map(_item, _split(text)))))
    if items and items[0].lower() in _NOTHING and len(items) == 1:
        return []
    if not items or len(items) > MAX_PROMPTS or any(len(item) > MAX_PROMPT_LENGTH for item in items):
        raise NotParsedError(text)
    return items


def _split(text: str) -> list[str]:
    if text.startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            raise NotParsedError(text) from None
        if not all(isinstance(item, str) for item in items):
            raise NotParsedError(text)
        return list(items)
    lines = [_BULLET.sub("", line) for line in text.splitlines()]
    *first, last = re.split(r"[,;\n]", "\n".join(lines)) or [""]
    # Only the end of an enumeration: "a black and white cat, a dog" has two items.
    return [*first, *re.split(r"\band\b", last)]


def _item(text: str) -> str:
    return normalized_prompt(_BEFORE_NAME.sub("", text.strip().rstrip(".").strip()))


_PARSERS = {"list": _parse_list, "number": _parse_number, "boolean": _parse_boolean}
