"""Where training keeps what it downloads and makes."""

import os
from pathlib import Path

SETTING = "TRAINING_FOLDER"


def training_folder() -> Path:
    """The folder that the setting `TRAINING_FOLDER` names, else one in the user's cache."""
    named = os.environ.get(SETTING)
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "moondream2-workflow-blocks" / "training"
