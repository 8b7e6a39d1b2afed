"""Loads a step's model in Inference's model manager."""

from inference.core.exceptions import InvalidModelIDError
from inference.core.workflows.prototypes.models_provider import ModelsProvider
from inference_models.errors import (
    BaseInferenceModelsError,
    ForbiddenModelAccessError,
    ModelPackageAlternativesExhaustedError,
    PaymentRequiredModelAccessError,
    RetryError,
    UnauthorizedModelAccessError,
    UsagePausedModelAccessError,
)
from roboflow_workflows.prototypes.platform_errors import (
    RoboflowAPIConnectionError,
    RoboflowAPINotNotFoundError,
    RoboflowAPITimeoutError,
)

from workflow_blocks.blocks.common.client_errors import InvalidInputError, UnavailableError, shown
from workflow_blocks.blocks.common.model_version import is_local, resolve_model_version

_ACCESS_ERRORS = (
    UnauthorizedModelAccessError,
    PaymentRequiredModelAccessError,
    ForbiddenModelAccessError,
    UsagePausedModelAccessError,
)
_LOADING_ERRORS = (
    ValueError,
    OSError,
    InvalidModelIDError,
    RoboflowAPINotNotFoundError,
    BaseInferenceModelsError,
)


def load_model(model_manager: ModelsProvider, model_version: object, api_key: str | None) -> str:
    """Loads a model, unless it is loaded, and returns its id in the model manager.

    Raises:
        InvalidInputError: the model does not exist or cannot be loaded.
        UnavailableError: the model cannot be fetched now.
        Exception: Inference's own error about the API key, which its server explains to the client.
    """
    model_id = resolve_model_version(model_version)
    try:
        model_manager.add_model(model_id=model_id, api_key=api_key)
    except (RoboflowAPIConnectionError, RoboflowAPITimeoutError, RetryError) as error:
        raise UnavailableError(
            f"`model_version` {shown(model_id)} cannot be fetched: {_first_line(error)}; give a model "
            "that this server has, or let it reach Roboflow",
            503,
        ) from error
    except _ACCESS_ERRORS:
        raise
    except _LOADING_ERRORS as error:
        fix = (
            "repair the package"
            if is_local(model_id)
            else "give the id of a Moondream2 that this server can load"
        )
        raise InvalidInputError(
            f"`model_version` {shown(model_version)} cannot be loaded: {_first_line(error)}; {fix}"
        ) from error
    return model_id


def _first_line(error: Exception) -> str:
    """What went wrong; for a downloaded model, with each of its packages."""
    if isinstance(error, ModelPackageAlternativesExhaustedError) and error.alternatives_errors:
        return "; ".join(map(_first_line, error.alternatives_errors))
    return str(error).partition("\n")[0].partition(" - VISIT ")[0]
