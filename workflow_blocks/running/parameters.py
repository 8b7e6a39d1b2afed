"""Reads a workflow's parameters from the arguments of a command line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflow_blocks.json_file import DuplicateKeyError, parse_json, read_json

BATCH_INPUT = "WorkflowBatchInput"
PARAMETER_TYPES = ("WorkflowParameter", "InferenceParameter", BATCH_INPUT)
IMAGE_TYPES = ("InferenceImage", "WorkflowImage")
# A workflow that has a parameter of this name gets the name of each file in it.
IMAGE_NAME_PARAMETER = "image_name"

# What values of Inference's kinds are in Python; a parameter of another kind takes any JSON.
_TYPES_OF_KINDS: dict[str, set[type]] = {
    "string": {str},
    "roboflow_model_id": {str},
    "roboflow_project": {str},
    "roboflow_solution": {str},
    "roboflow_api_key": {str},
    "secret": {str},
    "integer": {int},
    "float": {int, float},
    "float_zero_to_one": {int, float},
    "boolean": {bool},
    "list_of_values": {list},
    "dictionary": {dict},
}
_NOT_JSON = object()
_ANY_TYPE: set[type] = {str, int, float, bool, list, dict, type(None)}


class ParameterError(Exception):
    """A parameter does not fit the workflow; the message says how to fix it."""


def image_input(definition: Mapping[str, Any]) -> str:
    """The name of a definition's first image input.

    Raises:
        ParameterError: it has none.
    """
    for entry in _inputs(definition):
        if entry.get("type") in IMAGE_TYPES:
            return str(entry["name"])
    raise ParameterError("the workflow has no image input")


def parameter_inputs(definition: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A definition's inputs that are no images, by name."""
    return {entry["name"]: entry for entry in _inputs(definition) if entry.get("type") in PARAMETER_TYPES}


def _inputs(definition: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A definition's inputs that have a name; the engine reports the others when it compiles."""
    return [entry for entry in objects_in(definition.get("inputs")) if isinstance(entry.get("name"), str)]


def objects_in(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list in a definition that may be wrong; none if it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def directory_fields(definition: Mapping[str, Any]) -> list[str]:
    """What the steps' fields named `..._directory` hold: the folders that they write to, or selectors."""
    return [
        value
        for step in objects_in(definition.get("steps"))
        for name, value in step.items()
        if name.endswith("_directory") and isinstance(value, str)
    ]


def directory_parameters(definition: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that name folders to write to, with their defaults."""
    fields = directory_fields(definition)
    inputs = parameter_inputs(definition).items()
    return {name: entry.get("default_value") for name, entry in inputs if f"$inputs.{name}" in fields}


def with_directories_in(
    output: Path, parameters: Mapping[str, Any], definition: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters, with defaults of folders inside `output` where the user gives none."""
    defaults = {
        name: str(output / default)
        for name, default in directory_parameters(definition).items()
        if isinstance(default, str) and not default.startswith("~")
    }
    return defaults | dict(parameters)


def value_types(entry: Mapping[str, Any]) -> set[type]:
    """The types of a parameter's values, by its kinds, else by its default; any type without both."""
    kinds = kinds_of(entry)
    if kinds and all(kind in _TYPES_OF_KINDS for kind in kinds):
        return set[type]().union(*(_TYPES_OF_KINDS[kind] for kind in kinds))
    default = entry.get("default_value")
    if default is None:
        return _ANY_TYPE
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return {int, float}
    if isinstance(default, list):
        return {list, dict}  # prompts, as a list or by class
    return {dict, str} if isinstance(default, dict) else {type(default)}


def kinds_of(entry: Mapping[str, Any]) -> list[str]:
    """The names of an input's kinds, which a definition may give as text or as `{"name": ...}`."""
    kinds = entry.get("kind")
    if not isinstance(kinds, list):
        return []
    return [str(kind.get("name") if isinstance(kind, dict) else kind) for kind in kinds]


def parse_parameters(words: Sequence[str], definition: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from `--name value ...` and `--name=value`.

    The input's kind says what a value is; without a kind, the type of its default; without both, a value is
    JSON if it can be read as that, else text. An input that is a list takes several values, or one JSON
    list. A batch input takes a JSON object: image name to value.

    Raises:
        ParameterError: a word belongs to no parameter, the workflow knows no such parameter, or a value is
            not of the parameter's type.
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


def read_parameters(file: Path, definition: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters from a JSON file: an object of names and values, such as `prompts.json` of an evaluation.

    Raises:
        ParameterError: the file cannot be read, holds something else, or has a parameter that the workflow
            does not know.
    """
    document = read_json(file, ParameterError)
    if not isinstance(document, dict):
        raise ParameterError(f'{file} holds no JSON object such as {{"prompts": ["red circle"]}}')
    inputs = parameter_inputs(definition)
    unknown = [name for name in document if name not in inputs]
    if unknown:
        hint = ""
        if "prompts" in inputs and len(unknown) == len(document):
            hint = '. If the file holds prompts alone, put them under the key `prompts`: {"prompts": {...}}'
        known = ", ".join(inputs) or "none"
        raise ParameterError(f"{file}: the workflow has no parameter `{unknown[0]}`; it has {known}{hint}")
    return document


def values_in_force(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The value of each parameter of a workflow: the one that is given, else the default, else None."""
    return {
        name: parameters.get(name, entry.get("default_value"))
        for name, entry in parameter_inputs(definition).items()
    }


def check_values(
    substitutions: Iterable[Any], definition: Mapping[str, Any], parameters: Mapping[str, Any]
) -> None:
    """Checks the parameters' values as if they stood in the definition, also those that must fit each other.

    The engine checks each by itself, and only when it runs.

    Args:
        substitutions: of a compiled workflow: which step takes which parameter in which field.
        definition: the workflow.
        parameters: those that are given; the others have their defaults.

    Raises:
        ParameterError: a step refuses a value.
    """
    values = values_in_force(definition, parameters)
    filled: dict[str, Any] = {}  # the steps by name, with values in place of selectors
    for one in substitutions:
        parameter = one.input_parameter_name
        if parameter == IMAGE_NAME_PARAMETER and parameter not in parameters:
            continue  # each file has its own
        step = filled.setdefault(one.step_manifest.name, copy(one.step_manifest))
        value = values.get(parameter, parameters.get(parameter))
        try:
            setattr(step, one.manifest_property, value)
        except ValidationError as error:
            if value is None and parameter not in parameters:
                raise ParameterError(f"`{parameter}` has no default; give --{parameter}") from error
            problem = "; ".join(dict.fromkeys(detail["msg"] for detail in error.errors()))
            where = "" if f"`{parameter}`" in problem else f"`{parameter}`: "
            raise ParameterError(f"{where}step {step.name!r}: {problem}") from error


def _value(name: str, texts: list[str], entry: Mapping[str, Any]) -> Any:
    if entry["type"] == BATCH_INPUT:
        value = _json(name, texts[0])
        if len(texts) > 1 or not isinstance(value, dict):
            raise ParameterError(
                f'`{name}` is {" ".join(texts)!r}; give an object such as {{"image.jpg": ["red circle"]}}: '
                "a value for each image"
            )
        return value
    types = value_types(entry)
    if len(texts) > 1 and list not in types:
        raise ParameterError(f"`{name}` takes one value; quote it if it has spaces")
    if len(texts) == 1:
        value = _json(name, texts[0], types)
        if _is_meant(value, types):
            return value
        if str in types:
            return texts[0]
    if list in types:
        return _items(name, texts, types, entry.get("default_value"))
    raise ParameterError(f"`{name}` is {texts[0]!r}; give {_expected(entry)}")


def _is_meant(value: object, types: set[type]) -> bool:
    """Whether a word was written as JSON. Where text is expected, `null` and `"a"` are text as they are."""
    if types == _ANY_TYPE:
        return value is not _NOT_JSON
    if value is None:
        return not types & {str, list}
    return type(value) in types and not isinstance(value, str)


def _items(name: str, texts: list[str], types: set[type], default: object) -> list[Any]:
    """Several words as a list: of text if the default's items are text, or if not all words are JSON."""
    has_text = isinstance(default, list) and all(isinstance(item, str) for item in default)
    if has_text or (str in types and types != _ANY_TYPE):
        return list(texts)
    values = [_json(name, text) for text in texts]
    if _NOT_JSON not in values:
        return values
    if default:
        bad = texts[values.index(_NOT_JSON)]
        raise ParameterError(f"`{name}` is {bad!r}; give a list such as {json.dumps(default)}")
    return list(texts)


def _expected(entry: Mapping[str, Any]) -> str:
    default = entry.get("default_value")
    if default is not None:
        return f"a value such as {json.dumps(default)}"
    return f"a value of the kind {' or '.join(kinds_of(entry))}"


def _json(name: str, text: str, types: set[type] = _ANY_TYPE) -> Any:
    """The value of a JSON text, or `_NOT_JSON`; `True` and `False` are taken for booleans."""
    if bool in types and text in ("True", "False"):
        return text == "True"
    try:
        return parse_json(text, _refuse_constant)
    except DuplicateKeyError as error:
        if types & {dict, list}:
            raise ParameterError(f"`{name}`: {error}") from error
        return _NOT_JSON
    except (ValueError, RecursionError):
        return _NOT_JSON


def _refuse_constant(name: str) -> None:
    """`NaN` and `Infinity` are not JSON."""
    raise ValueError(name)
