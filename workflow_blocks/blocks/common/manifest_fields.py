"""What the manifests of several blocks share."""

from collections.abc import Callable

from inference.core.workflows.prototypes.block import is_workflow_selector
from pydantic import BeforeValidator

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown


def unless_selector(check: Callable[[object], object]) -> BeforeValidator:
    """Checks what a definition or an input gives; what a step gives is checked when it runs."""
    return BeforeValidator(lambda value: value if is_workflow_selector(value) else check(value))


def check_whole_number(name: str, value: object, low: int, high: int) -> object:
    """Raises `InvalidInputError` unless the field's value is a whole number from `low` to `high`."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise InvalidInputError(f"`{name}` is {shown(value)}; give a whole number from {low} to {high}")
