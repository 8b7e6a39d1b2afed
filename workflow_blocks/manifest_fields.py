"""What the manifests of several blocks share."""

from collections.abc import Callable

from inference.core.workflows.prototypes.block import is_workflow_selector
from pydantic import BeforeValidator


def unless_selector(check: Callable[[object], object]) -> BeforeValidator:
    """Checks what a definition or an input gives; what a step gives is checked when it runs."""
    return BeforeValidator(lambda value: value if is_workflow_selector(value) else check(value))
