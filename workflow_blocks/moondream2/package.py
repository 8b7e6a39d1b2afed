"""Makes a checkpoint folder a local model package, which Inference's model manager loads."""

import json
from pathlib import Path

MODEL_CONFIG_FILE = "model_config.json"
_MODULE_FILE = "model.py"

# Inference picks its Moondream2 adapter by the first two, and loads the class from the module.
_MODEL_CONFIG = {
    "model_architecture": "moondream2",
    "task_type": "vlm",
    "model_module": _MODULE_FILE,
    "model_class": "Moondream2Model",
}
_MODULE = '''"""Tells Inference where the runtime is. The weights bring no code of their own."""

from workflow_blocks.moondream2.inference_model import Moondream2Model

__all__ = ["Moondream2Model"]
'''


def write_package_files(folder: Path) -> None:
    """Writes, beside a checkpoint's files, the two that make it a package."""
    (folder / _MODULE_FILE).write_text(_MODULE)
    (folder / MODEL_CONFIG_FILE).write_text(json.dumps(_MODEL_CONFIG, indent=2) + "\n")
