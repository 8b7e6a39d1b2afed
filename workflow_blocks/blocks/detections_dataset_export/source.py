"""Where an image comes from."""

import base64
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from inference.core.workflows.execution_engine.entities.base import WorkflowImageData


def source_name(image: WorkflowImageData) -> str:
    """The file name of an image that came as a file or from a web address, or an empty string."""
    source = image.to_inference_format()
    if source["type"] == "url":
        return PurePosixPath(unquote(urlsplit(source["value"]).path)).name
    return Path(source["value"]).name if source["type"] == "file" else ""


def original_bytes(image: WorkflowImageData) -> bytes | None:
    """The encoded image as it came, if it is at hand. The pixels may have been changed since."""
    source = image.to_inference_format()
    try:
        if source["type"] == "base64":
            return base64.b64decode(source["value"].partition(",")[2] or source["value"])
        return Path(source["value"]).read_bytes() if source["type"] == "file" else None
    except (OSError, ValueError):
        return None
