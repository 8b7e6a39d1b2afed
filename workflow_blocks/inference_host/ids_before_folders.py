"""Lets ids of Moondream2 name models where the working directory has a folder of that name.

Inference takes the name of an existing folder for a path, so the folder `moondream2` would hide the id.
"""

import os
from functools import wraps
from types import ModuleType
from typing import Any

from workflow_blocks.model_ids import is_moondream2_id

# The modules of Inference that look for a folder: to find a model's type, and to load it.
MODEL_TYPES = "inference.core.registries.roboflow"
LOADER = "inference_models.models.auto_loaders.core"

_TYPE_OF_FOLDER = "_get_local_model_type"


def let_ids_have_types(registry: ModuleType) -> None:
    """Lets Inference find no type in a folder that has the name of an id."""
    type_of_folder = getattr(registry, _TYPE_OF_FOLDER, None)
    if type_of_folder is None or hasattr(type_of_folder, "__wrapped__"):
        return

    @wraps(type_of_folder)
    def type_of_package(model_id: Any) -> Any:
        return None if is_moondream2_id(model_id) else type_of_folder(model_id)

    setattr(registry, _TYPE_OF_FOLDER, type_of_package)


def let_ids_be_loaded(loader: ModuleType) -> None:
    """Lets Inference's loader see no file that has the name of an id."""
    loader.os = _System()  # type: ignore[attr-defined]


class _Paths:
    """`os.path`, for which ids are not paths."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os.path, name)

    def exists(self, path: Any) -> bool:
        return not is_moondream2_id(path) and os.path.exists(path)  # noqa: PTH110


class _System:
    """`os` with such paths."""

    path = _Paths()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)
