"""The model that is part of this package: its id and its folder."""

from importlib.resources import files
from pathlib import Path

DEMO_MODEL = "moondream2-demo"

# Inference loads model packages from the disk, such as the bundled one, only with this setting.
LOCAL_PACKAGES_SETTING = "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES"


def demo_model_folder() -> Path:
    """The folder of the bundled model."""
    return Path(str(files("workflow_blocks") / "demo_model"))


def not_allowed(model: str) -> str:
    """Why a server without the setting does not load a local package, for an error message."""
    return (
        f"{model} is a local model package, which this server does not load; "
        f"set {LOCAL_PACKAGES_SETTING}=True in its environment"
    )
