"""Errors that a step's caller can fix: the engine names the step, and a server answers 4xx."""

from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference.core.workflows.prototypes.block import WorkflowBlock

_SHOWN_LENGTH = 80


class InvalidInputError(ValueError):
    """A field's value cannot be used; the message has the field, the value and the fix."""


class UnavailableError(Exception):
    """Another server that a step needs does not do its part.

    Args:
        message: what happened.
        status_code: HTTP status for the client.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


def as_client_error(
    error: Exception, block: WorkflowBlock, status_code: int = 400
) -> ClientCausedStepExecutionError:
    """The engine's error for a failed step, with the HTTP status of the answer.

    It is the only error of the engine whose message reaches a client without a traceback of the server.
    """
    name = step_name(block)
    return ClientCausedStepExecutionError(
        block_id=name,
        status_code=status_code,
        public_message=f"Step {name!r}: {error}",
        context="workflow_execution | step_execution",
        inner_error=error,
    )


def step_name(block: WorkflowBlock) -> str:
    """The name of the step that a block runs, or "" outside of a workflow."""
    return str(getattr(block, "_workflow_step_name", ""))  # set by the engine


def shown(value: object) -> str:
    """A value for an error message. Long values are cut short, and their length is added."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; a number with too many digits
        return f"a {type(value).__name__} that is too large to show"
    if len(text) <= _SHOWN_LENGTH:
        return text
    text = f"{text[:_SHOWN_LENGTH]}..."
    if isinstance(value, str):
        return f"{text} ({len(value)} characters)"
    return f"{text} ({len(value)} items)" if isinstance(value, (list, tuple, dict)) else text
