"""Which model a `model_version` means: Inference's own id, a local package, or the bundled model."""

import os
from importlib.resources import files
from pathlib import Path

from inference.core.env import ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown

RELEASED_MODEL = "moondream2/moondream2_2b_jul24"
DEMO_MODEL = "moondream2-demo"

LOCAL_PACKAGES_SETTING = "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES"
MAX_LENGTH = 1000
_PACKAGE_FILE = "model_config.json"


def check_model_version(value: object) -> str:
    """A `model_version` that may be one, without blanks around it.

    Raises:
        InvalidInputError: it is no text, blank, longer than `MAX_LENGTH`, or holds control characters.
    """
    if isinstance(value, str) and value.strip() and len(value) <= MAX_LENGTH and value.isprintable():
        return value.strip()
    raise InvalidInputError(
        f"`model_version` is {shown(value)}; give a model id such as {RELEASED_MODEL!r}, {DEMO_MODEL!r}, "
        "or the path of a local model package"
    )


def resolve_model_version(model_version: object) -> str:
    """A `model_version` to the id that Inference's model manager knows it by.

    Raises:
        InvalidInputError: it is no model id, or a local package that is missing or not allowed.
    """
    model_version = check_model_version(model_version)
    if not is_local(model_version):
        return model_version
    if not ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES:
        raise InvalidInputError(
            f"`model_version` {shown(model_version)} is a local model package, which this server does not "
            f"load; set {LOCAL_PACKAGES_SETTING}=True in its environment"
        )
    folder = demo_model_folder() if model_version == DEMO_MODEL else Path(model_version)
    # Unlike `Path`, `os.path` takes names longer than files can have.
    if not os.path.isfile(folder / _PACKAGE_FILE):  # noqa: PTH113
        raise InvalidInputError(
            f"`model_version` {shown(model_version)} is no model package: it has no {_PACKAGE_FILE}; "
            "give the folder of a package"
        )
    return str(folder)


def is_local(model_version: str) -> bool:
    """Whether a `model_version` means a package on the server's disk rather than a Roboflow model id."""
    return (
        model_version == DEMO_MODEL or Path(model_version).is_absolute() or os.path.isdir(model_version)  # noqa: PTH112
    )


def demo_model_folder() -> Path:
    """Where the bundled model lies."""
    return Path(str(files("workflow_blocks") / "demo_model"))
