"""What Roboflow's API answers about a model, by a model manager that meets it: there is no such API here."""

import pytest
from inference.core.workflows.errors import ClientCausedStepExecutionError
from inference_models.errors import (
    ModelNotFoundError,
    ModelPackageAlternativesExhaustedError,
    ModelRetrievalError,
    RetryError,
    UnauthorizedModelAccessError,
)
from roboflow_workflows.prototypes.platform_errors import (
    RoboflowAPIConnectionError,
    RoboflowAPINotAuthorizedError,
    RoboflowAPINotNotFoundError,
    RoboflowAPITimeoutError,
)

from tests.blocks.moondream2_prompt_detection.test_remote_detection import detect
from workflow_blocks.blocks.common import model_loading
from workflow_blocks.settings_error import SettingsError


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
        (RoboflowAPIConnectionError("no way"), 503, "cannot be fetched: no way; give a model that is on"),
        (RoboflowAPITimeoutError("too slow"), 503, "cannot be fetched: too slow; give a model that is on"),
        (RetryError("no way"), 503, "cannot be fetched: no way; give a model that is on"),
    ],
)
def test_a_model_that_cannot_be_downloaded(monkeypatch, error, status, problem):
    monkeypatch.setattr(model_loading, "OFFLINE_MODE", False)

    with pytest.raises(ClientCausedStepExecutionError) as raised:
        detect(model_manager=Manager(error))

    assert raised.value.status_code == status
    assert f"`model_version` 'some/model' {problem}" in str(raised.value)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelRetrievalError("No offline-weights record found. Restart with OFFLINE_MODE=True."), 400),
        (RoboflowAPIConnectionError("no way"), 503),
        (RetryError("no way"), 503),
    ],
)
def test_a_model_that_is_not_there_offline(monkeypatch, error, status):
    monkeypatch.setattr(model_loading, "OFFLINE_MODE", True)

    with pytest.raises(ClientCausedStepExecutionError) as raised:
        detect(model_manager=Manager(error))

    assert raised.value.status_code == status
    assert "`model_version` 'some/model' cannot be fetched: OFFLINE_MODE=True forbids" in str(raised.value)
    assert "set OFFLINE_MODE=False" in str(raised.value)
    assert "estart" not in str(raised.value)


@pytest.mark.parametrize("is_wrapped", [False, True], ids=["package", "downloaded package"])
def test_a_setting_is_no_fault_of_the_package(is_wrapped):
    error = SettingsError("MOONDREAM2_DTYPE='int8': give another")
    if is_wrapped:
        error = ModelPackageAlternativesExhaustedError("none loads", alternatives_errors=[error])

    with pytest.raises(ClientCausedStepExecutionError) as raised:
        detect(model_manager=Manager(error))

    assert raised.value.status_code == 500
    assert str(raised.value).endswith("the setting MOONDREAM2_DTYPE='int8': give another")


@pytest.mark.parametrize("error", [UnauthorizedModelAccessError("key"), RoboflowAPINotAuthorizedError("key")])
def test_the_server_reports_a_wrong_api_key(error):
    with pytest.raises(type(error)):
        detect(model_manager=Manager(error))
