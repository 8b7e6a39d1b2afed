"""What Roboflow's API answers about a model, by a model manager that meets it: there is no such API here."""

import pytest
from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference_models.errors import ModelNotFoundError, RetryError, UnauthorizedModelAccessError
from roboflow_workflows.prototypes.platform_errors import (
    RoboflowAPIConnectionError,
    RoboflowAPINotAuthorizedError,
    RoboflowAPINotNotFoundError,
    RoboflowAPITimeoutError,
)

from tests.blocks.moondream2_prompt_detection.test_remote_detection import detect


class Manager:
    """A model manager that cannot have the model."""

    def __init__(self, error):
        self.error = error

    def add_model(self, **_):
        raise self.error


@pytest.mark.parametrize(
    ("error", "status", "problem"),
    [
        (RoboflowAPINotNotFoundError("no such model"), 400, "cannot be loaded: no such model; give the id"),
        (ModelNotFoundError("no such model"), 400, "cannot be loaded: no such model; give the id"),
        (RoboflowAPIConnectionError("no way"), 503, "cannot be fetched: no way; give a model that this"),
        (RoboflowAPITimeoutError("too slow"), 503, "cannot be fetched: too slow; give a model that this"),
        (RetryError("no way"), 503, "cannot be fetched: no way; give a model that this"),
    ],
)
def test_a_model_that_cannot_be_downloaded(error, status, problem):
    with pytest.raises(ClientCausedStepExecutionError) as raised:
        detect(model_manager=Manager(error))

    assert raised.value.status_code == status
    assert f"`model_version` 'some/model' {problem}" in str(raised.value)


@pytest.mark.parametrize("error", [UnauthorizedModelAccessError("key"), RoboflowAPINotAuthorizedError("key")])
def test_the_server_reports_a_wrong_api_key(error):
    with pytest.raises(type(error)):
        detect(model_manager=Manager(error))
