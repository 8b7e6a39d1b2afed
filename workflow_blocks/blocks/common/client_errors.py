"""Errors for what a caller sent: the engine names the step, and a server answers 4xx."""

from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference.core.workflows.prototypes.block import WorkflowBlock

_SHOWN_LENGTH = 80


class InvalidInputError(ValueError):
    """What a caller gave for a field cannot be used; the message names the field, value and mend."""


class UnavailableError(Exception):
    """What a step needs of another server is not to be had; `status_code` is what a client is told."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


def as_client_error(
    error: Exception, block: WorkflowBlock, status_code: int = 400
) -> ClientCausedStepExecutionError:
    """The engine's error for a step that failed, by default through its caller, with the answer's status.

    It is the engine's one error whose message reaches a client without the server's traceback.
    """
    step_name = getattr(block, "_workflow_step_name", "")  # set by the engine
    return ClientCausedStepExecutionError(
        block_id=step_name,
        status_code=status_code,
        public_message=f"Step {step_name!r}: {error}",
        context="workflow_execution | step_execution",
        inner_error=error,
    )


def shown(value: object) -> str:
    """A value as an error message shows it, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."
