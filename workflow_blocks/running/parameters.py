"""Reads a workflow's parameters from the arguments of a command line."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

BATCH_INPUT = "WorkflowBatchInput"
PARAMETER_TYPES = ("WorkflowParameter", "InferenceParameter", BATCH_INPUT)
IMAGE_TYPES = ("InferenceImage", "WorkflowImage")


class ParameterError(Exception):
    """A parameter does not fit the workflow; the message says how to fix it."""


def image_input(definition: Mapping[str, Any]) -> str:
    """The name of a definition's first image input.

    Raises:
        ParameterError: it has none.
    """
    for entry in definition.get("inputs", []):
        if entry.get("type") in IMAGE_TYPES:
            return str(entry["name"])
    raise ParameterError("the workflow has no image input")


def parameter_inputs(definition: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A definition's inputs that are no images, by name."""
    return {
        entry["name"]: entry for entry in definition.get("inputs", []) if entry.get("type") in PARAMETER_TYPES
    }


def parse_parameters(words: Sequence[str], definition: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from `--name value ...` and `--name=value`.

    A value is text where the definition's default is text, else JSON. An input whose default is a list takes
    several values, or one JSON list. A batch input takes a JSON object: image name to value.

    Raises:
        ParameterError: a word belongs to no parameter, the workflow knows no such parameter, or a value is
            not of the default's kind.
    """
    inputs = parameter_inputs(definition)
    given: dict[str, list[str]] = {}
    values: list[str] | None = None
    for word in words:
        if word.startswith("--"):
            name, has_value, value = word[2:].partition("=")
            values = given.setdefault(name, [])
            if has_value:
                values.append(value)
        elif values is None:
            raise ParameterError(f"{word!r} belongs to no parameter; write --NAME {word}")
        else:
            values.append(word)
    for name, texts in given.items():
        if name not in inputs:
            raise ParameterError(
                f"the workflow has no parameter `{name}`; it has {', '.join(inputs) or 'none'}"
            )
        if not texts:
            raise ParameterError(f"`{name}` is given no value")
    return {name: _value(name, texts, inputs[name]) for name, texts in given.items()}


def _value(name: str, texts: list[str], entry: Mapping[str, Any]) -> Any:
    like = entry.get("default_value")
    if entry["type"] == BATCH_INPUT:
        value = _json(name, texts[0], 'an object such as {"image.jpg": ["red circle"]}')
        if len(texts) > 1 or not isinstance(value, dict):
            raise ParameterError(
                f"`{name}` has a value for each image; give a JSON object, image name to value"
            )
        return value
    if isinstance(like, list):
        if len(texts) == 1 and texts[0].startswith("["):
            return _json(name, texts[0], f"a list such as {json.dumps(like)}")
        if all(isinstance(item, str) for item in like):
            return texts
        return [_json(name, text, f"values such as {json.dumps(like)}") for text in texts]
    if len(texts) > 1:
        raise ParameterError(f"`{name}` takes one value; quote it if it has spaces")
    if like is None or isinstance(like, str):
        return texts[0]
    return _json(name, texts[0], f"a value such as {json.dumps(like)}")


def _json(name: str, text: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ParameterError(f"`{name}` is {text!r}; give {expected}") from error
