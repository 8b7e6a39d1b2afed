"""Loads a step's model in Inference's model manager."""

from inference.core.env import OFFLINE_MODE
from inference.core.exceptions import InvalidModelIDError
from inference.core.workflows.prototypes.models_provider import ModelsProvider
from inference_models.errors import (
    BaseInferenceModelsError,
    ForbiddenModelAccessError,
    ModelPackageAlternativesExhaustedError,
    ModelRetrievalError,
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
from workflow_blocks.bundled_model import DEMO_MODEL
from workflow_blocks.settings_error import SettingsError

_ACCESS_ERRORS = (
    UnauthorizedModelAccessError,
    PaymentRequiredModelAccessError,
    ForbiddenModelAccessError,
    UsagePausedModelAccessError,
)
_FETCHING_ERRORS = (RoboflowAPIConnectionError, RoboflowAPITimeoutError, RetryError)
_LOADING_ERRORS = (
    *_FETCHING_ERRORS,
    ValueError,
    OSError,
    RecursionError,  # a file that is nested too deep
    InvalidModelIDError,
    RoboflowAPINotNotFoundError,
    BaseInferenceModelsError,
)


def load_model(model_manager: ModelsProvider, model_version: object, api_key: str | None) -> str:
    """Loads a model, unless it is loaded, and returns its id in the model manager.

    Raises:
        InvalidInputError: the model does not exist or cannot be loaded.
        UnavailableError: the model cannot be fetched now, or a setting of this server is invalid.
        Exception: Inference's own error about the API key, which its server explains to the client.
    """
    model_id = resolve_model_version(model_version)
    try:
        model_manager.add_model(model_id=model_id, api_key=api_key)
    except _ACCESS_ERRORS:
        raise
    except _LOADING_ERRORS as error:
        raise _explained(error, str(model_version), is_local(str(model_version))) from error
    return model_id


def _explained(
    error: Exception, model_version: str, is_package: bool
) -> InvalidInputError | UnavailableError:
    """The error for the client: what went wrong, and what to do."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, SettingsError):
            return UnavailableError(f"the setting {cause}", 500)
    name = f"`model_version` {shown(model_version)}"
    if OFFLINE_MODE and isinstance(error, (*_FETCHING_ERRORS, ModelRetrievalError)):
        problem = (
            f"{name} cannot be fetched: OFFLINE_MODE=True forbids downloads, and it was not downloaded for "
            "use offline; set OFFLINE_MODE=False in the environment (and OFFLINE_MODE_WARM_UP=True to use "
            f"it offline later), or give a local package or {DEMO_MODEL!r}"
        )
        is_id_wrong = isinstance(error, ModelRetrievalError)
        return InvalidInputError(problem) if is_id_wrong else UnavailableError(problem, 503)
    reason = "; ".join(map(_first_line, causes))
    if isinstance(error, _FETCHING_ERRORS):
        return UnavailableError(
            f"{name} cannot be fetched: {reason}; give a model that is on this machine, or let it reach "
            "Roboflow",
            503,
        )
    fix = "repair the package" if is_package else "give the id of a Moondream2 that can be loaded here"
    return InvalidInputError(f"{name} cannot be loaded: {reason}; {fix}")


def _causes(error: Exception) -> list[Exception]:
    """The error, or for a downloaded model those of each of its packages."""
    if isinstance(error, ModelPackageAlternativesExhaustedError) and error.alternatives_errors:
        return [cause for inner in error.alternatives_errors for cause in _causes(inner)]
    return [error]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(" - VISIT ")[0].rstrip(".")
