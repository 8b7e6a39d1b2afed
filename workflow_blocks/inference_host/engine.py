"""Sets up Inference's own execution engine in this process, as its server and command line do."""

import os
from typing import Any

from workflow_blocks.inference_host.registry import register

# Inference reads them when it is imported. Settings of the user are kept.
PLUGIN_SETTINGS = {
    "WORKFLOWS_PLUGINS": "workflow_blocks",
    "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES": "True",
}
# No usage reports and no weight downloads: the bundled model needs neither.
LOCAL_SETTINGS = PLUGIN_SETTINGS | {"OFFLINE_MODE": "True", "METRICS_ENABLED": "False"}


def use_plugin_settings() -> None:
    """Makes Inference load this plugin, its model class and local packages.

    It must be called before `inference` is imported.

    Raises:
        RuntimeChoiceError: `MOONDREAM2_RUNTIME` has an invalid value.
    """
    for name, value in PLUGIN_SETTINGS.items():
        os.environ.setdefault(name, value)
    register()


def use_local_settings() -> None:
    """The same, and works offline; for Inference inside this process. Raises as `use_plugin_settings`."""
    use_plugin_settings()
    for name, value in LOCAL_SETTINGS.items():
        os.environ.setdefault(name, value)


def make_model_manager() -> Any:
    """Inference's model manager; engines that share one share their models."""
    from inference.core.managers.base import ModelManager
    from inference.core.registries.roboflow import RoboflowModelRegistry
    from inference.models.utils import ROBOFLOW_MODEL_TYPES

    return ModelManager(RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES))


def make_engine(
    definition: dict[str, Any],
    model_manager: Any,
    max_concurrent_steps: int = 1,
    init_parameters: dict[str, Any] | None = None,
) -> Any:
    """An execution engine for a workflow definition.

    Args:
        definition: the workflow.
        model_manager: provides the models.
        max_concurrent_steps: how many steps may run at once.
        init_parameters: further init parameters of blocks, such as `workflows_core.step_execution_mode`.

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
        }
        | (init_parameters or {}),
        max_concurrent_steps=max_concurrent_steps,
    )
