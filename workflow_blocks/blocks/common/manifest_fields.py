"""Types of manifest fields: limits that a JSON schema shows, and one clear error for each bad value.

A manifest combines a literal type with a selector (`ZeroToOne | Selector(...)`). A value that a selector
gives at run time passes the same literal type, as a field of a model: see `checked`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args

from inference.core.workflows.prototypes.block import is_workflow_selector
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown

_Fields = TypeVar("_Fields", bound=BaseModel)


@dataclass(frozen=True)
class Fix:
    """Metadata of a type: how an error says to fix a value."""

    text: str


def _check_number(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError("not a number")


# `float` alone would take booleans and strings, and in strict mode still numpy's booleans.
NUMBERS_ONLY = BeforeValidator(_check_number)

ZeroToOne = Annotated[
    float, Field(ge=0, le=1, allow_inf_nan=False), NUMBERS_ONLY, Fix("give a number from 0 to 1")
]
Flag = Annotated[bool, Fix("give true or false")]


def has_selectors(value: object) -> bool:
    """Whether a value, or an item of a list or dictionary, is known only at run time."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return any(isinstance(item, str) and is_workflow_selector(item) for item in items)


def explain_errors(
    cls: type[BaseModel], value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo
) -> Any:
    """For `field_validator(..., mode="wrap")`: one error instead of one for each type of a union."""
    try:
        return validate(value)
    except ValidationError as error:
        name = str(info.field_name)
        problem = _problem(name, cls.model_fields[name], value, error.errors())
        raise PydanticCustomError("invalid_input", "{problem}", {"problem": problem}) from None


def checked(fields: type[_Fields], **values: Any) -> _Fields:
    """Values that inputs or steps gave at run time, as the types of the fields take them.

    Raises:
        InvalidInputError: a value is refused; the message has its field, the value and the fix.
    """
    try:
        return fields(**values)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        details = [detail for detail in error.errors() if detail["loc"][0] == name]
        raise InvalidInputError(_problem(name, fields.model_fields[name], values[name], details)) from error


def _problem(name: str, field: FieldInfo, value: object, details: list[ErrorDetails]) -> str:
    bad_items = [d["input"] for d in details if any(isinstance(place, int) for place in d["loc"])]
    found = f"holds {shown(bad_items[0])}" if bad_items else f"is {shown(value)}"
    if isinstance(value, dict):
        bad_entries = [{key: value[key]} for d in details for key in d["loc"] if key in value]
        found = f"holds {shown(bad_entries[0])}" if bad_entries else found
    fix = next(filter(None, map(_fix, (field.annotation, *field.metadata))), None)
    return f"`{name}` {found}; {fix or f'give a value such as {(field.examples or [None])[0]!r}'}"


def _fix(annotation: object) -> str | None:
    """The text of the first `Fix` in an annotation."""
    if isinstance(annotation, Fix):
        return annotation.text
    return next(filter(None, map(_fix, get_args(annotation))), None)
