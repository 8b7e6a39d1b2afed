"""What the blocks that run Moondream2 have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

from inference.core.workflows.core_steps.common.entities import StepExecutionMode
from inference.core.workflows.prototypes.block import WorkflowBlock
from inference.core.workflows.prototypes.models_provider import ModelsProvider
from inference_models.errors import ModelInputError

from workflow_blocks.blocks.common.client_errors import InvalidInputError, UnavailableError, as_client_error


class Moondream2Block(WorkflowBlock):  # type: ignore[misc]
    """A block that runs a model of the server's model manager, or asks another server to."""

    def __init__(
        self, model_manager: ModelsProvider, api_key: str | None, step_execution_mode: StepExecutionMode
    ) -> None:
        self._model_manager = model_manager
        self._api_key = api_key
        self._step_execution_mode = step_execution_mode

    @classmethod
    def get_init_parameters(cls) -> list[str]:
        return ["model_manager", "api_key", "step_execution_mode"]

    @contextmanager
    def _client_errors(self) -> Iterator[None]:
        """Errors that a client can fix, or should know, as the engine's own."""
        try:
            yield
        except (InvalidInputError, ModelInputError) as error:
            raise as_client_error(error, self) from error
        except UnavailableError as error:
            raise as_client_error(error, self, error.status_code) from error
