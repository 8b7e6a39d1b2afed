"""Puts this plugin's classes into Inference's registries. Importing this module imports nothing heavy."""

import logging
from dataclasses import replace
from types import ModuleType
from typing import Any

from workflow_blocks.bundled_model import DEMO_MODEL
from workflow_blocks.inference_host.after_import import after_import
from workflow_blocks.inference_host.ids_before_folders import (
    LOADER,
    MODEL_TYPES,
    let_ids_be_loaded,
    let_ids_have_types,
)
from workflow_blocks.inference_host.runtime_choice import chosen_runtime

MODEL_CLASSES = "inference_models.models.auto_loaders.models_registry"
ADAPTERS = "inference.models.utils"

ARCHITECTURE, TASK = "moondream2", "vlm"

_LOGGER = logging.getLogger(__name__)
_OWN_MODULE = "workflow_blocks.inference_host.provider_model"
_OWN_CLASS = "ProviderMoondream2"


def register() -> None:
    """Registers the model class, its adapter and the id `moondream2-demo`; may be called many times.

    From then on a folder in the working directory does not hide an id of Moondream2.

    Modules of Inference that are not imported yet are changed when they are: nothing is imported now.
    `MOONDREAM2_RUNTIME=inference` leaves Inference's own model class in its place.

    Raises:
        RuntimeChoiceError: `MOONDREAM2_RUNTIME` has an invalid value.
    """
    if chosen_runtime() != "inference":
        after_import(MODEL_CLASSES, _register_model_class)
    after_import(ADAPTERS, _register_adapter)
    after_import(MODEL_TYPES, _register_ids)
    after_import(LOADER, let_ids_be_loaded)


def _register_model_class(registry: ModuleType) -> None:
    models = registry.REGISTERED_MODELS
    key = (ARCHITECTURE, registry.VLM_TASK, registry.BackendType.HF)
    entry = models.get(key)
    if entry is None:
        _LOGGER.warning("This release of Inference has no Moondream2 of its own; its ids stay as they are.")
        return
    is_plain = isinstance(entry, registry.LazyClass)
    current = entry if is_plain else entry.model_class
    if _name(current) == (_OWN_MODULE, _OWN_CLASS):
        return
    if getattr(current, "_symbol", None) is not None:  # the class was asked for, so a model was loaded
        _LOGGER.warning(
            "Inference loaded a Moondream2 with its own class before this plugin was registered. That model "
            "keeps Inference's own class until it is loaded again. To register this plugin first, start the "
            "server with `workflow-blocks serve` or as `workflow_blocks.running.server_app:app`."
        )
    own = registry.LazyClass(module_name=_OWN_MODULE, class_name=_OWN_CLASS)
    models[key] = own if is_plain else replace(entry, model_class=own)


def _name(lazy_class: Any) -> tuple[str | None, str | None]:
    return getattr(lazy_class, "_module_name", None), getattr(lazy_class, "_class_name", None)


def _register_adapter(adapters: ModuleType) -> None:
    """Replaces Inference's adapter where it is in use: not with `USE_INFERENCE_MODELS=False`."""
    types = adapters.ROBOFLOW_MODEL_TYPES
    keys = [(task, ARCHITECTURE) for task in (TASK, "lmm")]
    keys = [
        key for key in keys if getattr(types.get(key), "__name__", "") == "InferenceModelsMoondream2Adapter"
    ]
    if keys:
        from workflow_blocks.inference_host.adapter import Moondream2Adapter

        types.update(dict.fromkeys(keys, Moondream2Adapter))


def _register_ids(registry: ModuleType) -> None:
    """Makes `moondream2-demo` an id that needs no request to the provider; the adapter finds its folder."""
    registry.GENERIC_MODELS.setdefault(DEMO_MODEL, (TASK, ARCHITECTURE))
    let_ids_have_types(registry)
