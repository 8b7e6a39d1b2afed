"""Reads values from answers. What is not surely the value is not taken for it."""

import json
import re
from collections.abc import Sequence
from typing import Any

from workflow_blocks.blocks.common.prompts import MAX_PROMPTS
from workflow_blocks.prompt_text import MAX_PROMPT_LENGTH, normalized_prompt

_NUMBER = re.compile(r"[-+]?(\d+(\.\d+)?|\.\d+|\d{1,3}(,\d{3})+(\.\d+)?)", re.ASCII)
# A longer whole number fits no column of 64 bits.
_MAX_WHOLE_LENGTH = 18
# A float keeps so many digits of a number; the rest of a fraction is rounded.
_EXACT_LENGTH = 15
_MAX_NUMBER_LENGTH = 100
_SMALL_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_BOOLEANS = {"yes": True, "true": True, "no": False, "false": False}
# "yes", and "yes, there is a car"; not "no. 5".
_BOOLEAN = re.compile(r"(yes|no|true|false)\b\s*(?:[,.;:!](?!\s*\d)(.*))?", re.DOTALL)
# What takes back or doubts a yes or a no: "yes, or no", "no, but it could be".
_TAKEN_BACK = re.compile(
    r"^\W*(?:or|but|not|one)\b|\b(?:yes|true|false|maybe|perhaps|possibly|probably|might|may|could|unsure"
    r"|uncertain|unclear|not sure|not certain|or no|or not|maybe not)\b|\bno\W*$|^\W*no\b"
)
_NEGATED = re.compile(r"\b(?:no|not|never|none)\b|n\Wt\b")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,3}[.)])\s+")
# "Objects:", and "The image shows" before a list.
_HEADING = re.compile(r"^[^,;:\n]{1,60}:\s+")
_BEFORE_LIST = re.compile(
    r"^(?:(?:the|this) (?:image|picture|photo|scene) (?:shows|contains|has|features|depicts|includes)"
    r"|there (?:is|are)|(?:i|you|we) (?:can )?see|it shows|(?:an image|a picture|a photo) of)\s+",
    re.IGNORECASE,
)
_COUNTED = rf"(?:an?|the|some|\d{{1,3}}|{'|'.join(_SMALL_NUMBERS[1:])})\s"
# "and a dog" and "two dogs" are found by the name alone.
_BEFORE_NAME = re.compile(rf"^(?:and\b\s*)?(?:{_COUNTED}\s*)?", re.IGNORECASE)
_AND = re.compile(r"\band\b", re.IGNORECASE)
_AND_COUNTED = re.compile(rf"\band\b(?=\s+{_COUNTED})", re.IGNORECASE)
_IS_COUNTED = re.compile(rf"^\s*{_COUNTED}", re.IGNORECASE)
_NOTHING = re.compile(
    r"(?:none|nothing)(?: (?:in|on|at|is|else|visible)\b.*)?|no(?: objects?)?", re.IGNORECASE
)
_CODE = re.compile(r"```\w*\s*(.*?)\s*```", re.DOTALL)
_QUOTED = re.compile(r"([\"'`])(.*)\1")
_AND_SO_ON = re.compile(r"(?:and )?(?:etc\.?|so on|more|others)", re.IGNORECASE)
# "no cats" is no cat; "cat 2. dog" is two items, and "{...}" is no list.
_NO_ITEM = re.compile(r"^(?:no|not)\b|\s\d{1,3}[.)]\s|[{}]", re.IGNORECASE)
# Two sentences, or a question; "St. Bernard" is neither.
_SENTENCES = re.compile(r"\w{3,}[.!]\s+\S|\?")
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
    digits = text.replace(",", "")
    if len(text) > _MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(text):
        raise NotParsedError(text)
    whole, _, fraction = digits.partition(".")
    length = len(whole.lstrip("+-0"))
    if length > (_EXACT_LENGTH if fraction.strip("0") else _MAX_WHOLE_LENGTH):
        raise NotParsedError(text)
    return float(digits) if fraction.strip("0") else int(whole if whole.strip("+-") else "0")


def _parse_boolean(text: str) -> bool:
    match = _BOOLEAN.fullmatch(text.casefold())
    if match is None:
        raise NotParsedError(text)
    value, rest = _BOOLEANS[match[1]], match[2] or ""
    if _TAKEN_BACK.search(rest) or (value and _NEGATED.search(rest)):
        raise NotParsedError(text)
    return value


def _parse_list(text: str) -> list[str]:
    """Different texts of an enumeration or of lines, without bullets, articles and numbers before them."""
    if code := _CODE.fullmatch(text):
        text = code[1]
    if _NOTHING.fullmatch(_BEFORE_LIST.sub("", text).rstrip(".").strip()):
        return []
    return _different(text, _split(text, _AND))


def parse_cut_list(text: str) -> list[str]:
    """The same of an answer that was cut short, without its last item, which may be the beginning of a name.

    Raises:
        NotParsedError: the answer has another form, or one item only.
    """
    text = text.strip()
    if text.startswith("["):
        text = f"{text.rpartition(',')[0] or '['}]"
        return _different(text, _split(text, _AND))
    # "black and whi" is no "black".
    return _different(text, _split(text, _AND_COUNTED)[:-1])


def _different(text: str, parts: Sequence[str]) -> list[str]:
    """The items of a text, of which the first spelling counts."""
    items: dict[str, str] = {}
    for item in filter(None, map(_item, parts)):
        if not _AND_SO_ON.fullmatch(item):
            items.setdefault(item.casefold(), item)
    if (
        not items
        or len(items) > MAX_PROMPTS
        or any(
            len(item) > MAX_PROMPT_LENGTH or _SENTENCES.search(item) or _NO_ITEM.search(item)
            for item in items.values()
        )
    ):
        raise NotParsedError(text)
    return list(items.values())


def _split(text: str, last_separator: re.Pattern[str]) -> list[str]:
    """The parts of a list; `last_separator` is between the last two parts of an enumeration."""
    if text.startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            raise NotParsedError(text) from None
        if not all(isinstance(item, str) for item in items):
            raise NotParsedError(text)
        return list(items)
    lines = text.splitlines()
    if len(lines) > 1:
        rows = [line for line in lines if not line.rstrip().endswith(":")]
        return [item for line in rows for item in re.split("[,;]", _BULLET.sub("", line))]
    text = _BEFORE_LIST.sub("", _HEADING.sub("", text))
    *first, last = re.split("[,;]", text)
    # Only the end of an enumeration: "black and white cat, a dog" has two items. Where items have articles
    # or numbers, so does the last: "a black and white cat" is one.
    separator = _AND_COUNTED if _IS_COUNTED.match(_BULLET.sub("", text)) else last_separator
    return [*first, *separator.split(last)]


def _item(text: str) -> str:
    name = _BULLET.sub("", text.strip()).rstrip(".").strip()
    if quoted := _QUOTED.fullmatch(name):
        name = quoted[2]
    return normalized_prompt(_BEFORE_NAME.sub("", name))


_PARSERS = {"list": _parse_list, "number": _parse_number, "boolean": _parse_boolean}
