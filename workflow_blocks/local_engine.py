"""Inference's own execution engine in this process, as its server and command line set it up."""

import os
from pathlib import Path
from typing import Any

# Read by Inference when it is imported. `setdefault` leaves a user's own choice alone.
LOCAL_SETTINGS = {
    "WORKFLOWS_PLUGINS": "workflow_blocks",
    "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES": "True",
    # No usage reports and no weight downloads: the bundled model needs neither.
    "OFFLINE_MODE": "True",
    "METRICS_ENABLED": "False",
}


def use_local_settings() -> None:
    """Sets what this plugin needs; call it before anything imports `inference`."""
    for name, value in LOCAL_SETTINGS.items():
        os.environ.setdefault(name, value)


def make_model_manager() -> Any:
    """Inference's model manager, through which all engines of a process can share their models."""
    from inference.core.managers.base import ModelManager
    from inference.core.registries.roboflow import RoboflowModelRegistry
    from inference.models.utils import ROBOFLOW_MODEL_TYPES

    return ModelManager(RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES))


def make_engine(definition: dict[str, Any], model_manager: Any, max_concurrent_steps: int = 1) -> Any:
    """An execution engine for a workflow definition.

    Raises:
        inference.core.workflows.errors.WorkflowError: the definition does not compile.
    """
    from inference.core.interfaces.workflows_models_provider import ModelManagerModelsProvider
    from inference.core.workflows.execution_engine.core import ExecutionEngine

    return ExecutionEngine.init(
        workflow_definition=definition,
        init_parameters={
            "workflows_core.model_manager": ModelManagerModelsProvider(model_manager),
            "workflows_core.api_key": None,
        },
        max_concurrent_steps=max_concurrent_steps,
    )


def workflow_file(name: str) -> Path:
    """The path of a workflow definition that comes with this package, by its name without `.json`."""
    package = Path(__file__).parent
    installed = package / "workflows" / f"{name}.json"
    return installed if installed.is_file() else package.parent / "workflows" / f"{name}.json"
