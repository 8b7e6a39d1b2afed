"""Which model a `model_version` means: a model id of Inference, a local package, or the bundled model.

An id of Moondream2 is never a path. A name that is absolute or starts with `./` or `../` always is. Any other
name is a path if there is such a folder, and otherwise an id.
"""

import os
from pathlib import Path
from typing import Annotated

from inference.core.env import ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES
from inference_models.models.auto_loaders.entities import MODEL_CONFIG_FILE_NAME
from pydantic import AfterValidator, BaseModel, StringConstraints

from workflow_blocks.blocks.common.client_errors import InvalidInputError, shown
from workflow_blocks.blocks.common.manifest_fields import Fix, checked
from workflow_blocks.bundled_model import DEMO_MODEL, demo_model_folder, not_allowed
from workflow_blocks.model_ids import is_moondream2_id
from workflow_blocks.package_ids import id_of_package

RELEASED_MODEL = "moondream2/moondream2_2b_jul24"
MAX_LENGTH = 1000


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters")
    return value.strip()


ModelVersion = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_LENGTH, pattern=r"\S"),
    AfterValidator(_printable),
    Fix(
        f"give a model id such as {RELEASED_MODEL!r}, {DEMO_MODEL!r}, or the path of a local model package, "
        f"at most {MAX_LENGTH} characters"
    ),
]


class _Fields(BaseModel):
    model_version: ModelVersion


def check_model_version(value: object) -> str:
    """A `model_version` without surrounding whitespace.

    Raises:
        InvalidInputError: it is not a string, blank, too long, or has control characters.
    """
    return checked(_Fields, model_version=value).model_version


def resolve_model_version(value: object) -> str:
    """The id by which Inference's model manager knows a `model_version`.

    Raises:
        InvalidInputError: it cannot be a model id, or is a local package that is missing or not allowed.
    """
    model_version = check_model_version(value)
    if not is_local(model_version):
        if not model_version.isascii():
            raise InvalidInputError(
                f"`model_version` {shown(model_version)} is neither an id, which is in ASCII, nor a folder "
                "of this server; give the id of a model or the folder of a package"
            )
        return model_version
    if not ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES:
        raise InvalidInputError(not_allowed(f"`model_version` {shown(model_version)}"))
    # Unlike `Path`, `os.path` accepts names that are longer than the file system allows.
    folder = os.path.abspath(model_version)  # noqa: PTH100
    if model_version == DEMO_MODEL or Path(folder) == demo_model_folder():
        return DEMO_MODEL  # so that it is loaded once
    if not os.path.isfile(os.path.join(folder, MODEL_CONFIG_FILE_NAME)):  # noqa: PTH113, PTH118
        raise InvalidInputError(
            f"`model_version` {shown(model_version)} is not a model package: "
            f"it has no {MODEL_CONFIG_FILE_NAME}; give the folder of a package"
        )
    return id_of_package(folder)


def is_local(model_version: str) -> bool:
    """Whether a `model_version` is a package on the server's disk rather than a Roboflow model id."""
    if is_moondream2_id(model_version):
        return model_version == DEMO_MODEL
    return (
        Path(model_version).is_absolute()
        or model_version.startswith(("./", "../"))
        or os.path.isdir(model_version)  # noqa: PTH112
    )
