"""What goes wrong in a run, in words."""

import difflib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails


class RunError(Exception):
    """A run cannot start; the message says how to fix it."""


class FileError(Exception):
    """One file cannot be processed; the others can."""


def reason_of(error: BaseException) -> str:
    """Why a file failed, with the step that failed if there is one."""
    if isinstance(error, FileError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    step = getattr(error, "block_id", None)
    cause = error
    while isinstance(inner := getattr(cause, "inner_error", None), BaseException):
        cause = inner
        step = step or getattr(cause, "block_id", None)
    text = str(cause) or type(cause).__name__
    return f"step {step}: {text}" if step and str(step) not in text else text


def definition_problem(error: Exception, definition: Mapping[str, Any]) -> str:
    """Why a definition does not compile: each reason with its step and field.

    Args:
        error: what Inference's engine raised.
        definition: the definition, for the names of its steps.
    """
    inner = getattr(error, "inner_error", None)
    if isinstance(inner, ValidationError):
        return "; ".join(_invalid_field(detail, definition) for detail in inner.errors())
    problems = [str(error) if inner is None else reason_of(error), *_repeated_names(definition)]
    for block in getattr(error, "blocks_errors", None) or []:
        places = {"step": block.block_id, "field": block.property_name}
        where = ", ".join(f"{what} {name}" for what, name in places.items() if name)
        problems.append(f"{where}: {block.property_details}" if block.property_details else where)
    return "; ".join(problem for problem in problems if problem) or type(error).__name__


def _invalid_field(detail: ErrorDetails, definition: Mapping[str, Any]) -> str:
    """One of pydantic's errors; its place is such as ('steps', 0, <block type>, <field>)."""
    section, *place = detail["loc"] or ("definition",)
    where = str(section)
    if place:
        index = place.pop(0)
        entry = _entry(definition, section, index)
        where = f"{str(section).removesuffix('s')} {entry.get('name', index)!r}"
        if place[:1] == [entry.get("type")]:
            place.pop(0)
    if place:
        where += f", field {'.'.join(map(str, place))}"
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":
        known = [tag.strip("' ") for tag in str(context.get("expected_tags", "")).split(",")]
        like = difflib.get_close_matches(str(context.get("tag")), known, n=1)
        hint = f"; did you mean {like[0]!r}?" if like else ""
        return f"{where}: there is no type {context.get('tag')!r}{hint}"
    if detail["type"] == "union_tag_not_found":
        return f"{where}: the field `type` is missing"
    return f"{where}: {detail['msg']}"


def _entry(definition: Mapping[str, Any], section: object, index: object) -> Mapping[str, Any]:
    try:
        entry = definition[section][index]  # type: ignore[index]
    except (LookupError, TypeError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _repeated_names(definition: Mapping[str, Any]) -> list[str]:
    """Names that the engine refuses without saying which they are."""
    problems = []
    for section in ("inputs", "steps", "outputs"):
        entries = definition.get(section)
        if not isinstance(entries, list):
            continue
        names = [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            problems.append(f"`{section}` has more than one {', '.join(map(repr, repeated))}")
    return problems
