"""What the detections of an evaluation come from, beside its definition: the weights and the settings."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow_blocks.moondream2.settings import load_settings
from workflow_blocks.package_ids import folder_of

# The settings that change what is found.
_SETTINGS = {"dtype", "max_crops", "refine_boxes"}
_FILES = ("config.json", "tokenizer.json", "*.safetensors")
# Training changes all of the weights: parts of a large file tell it from another.
_PARTS, _PART_BYTES = 32, 2**16


def runtime_facts(models: Iterable[str]) -> dict[str, Any]:
    """The fingerprints of the models whose weights are in a folder, and the settings of the runtime."""
    folders = {model: Path(folder_of(model) or model) for model in models}
    fingerprints = {model: fingerprint(folder) for model, folder in folders.items() if folder.is_dir()}
    settings = load_settings().model_dump(include=_SETTINGS)
    return {"weights": fingerprints, "settings": settings}


def models_of(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """The models that the steps of a workflow name, themselves or by a parameter."""
    defaults = {entry.get("name"): entry.get("default_value") for entry in definition.get("inputs", [])}
    named = [step.get("model_version") for step in definition.get("steps", [])]
    inputs = {f"$inputs.{name}": parameters.get(str(name), default) for name, default in defaults.items()}
    given = [inputs.get(value, value) if isinstance(value, str) else None for value in named]
    return [model for model in dict.fromkeys(given) if isinstance(model, str)]


def fingerprint(folder: Path) -> str:
    """A hash of a package's sizes and of parts of its files."""
    digest = hashlib.sha256()
    for pattern in _FILES:
        for file in sorted(folder.glob(pattern)):
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            for part in _parts(file):
                digest.update(part)
    return digest.hexdigest()


def _parts(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        for number in range(_PARTS):
            opened.seek(max(0, size - _PART_BYTES) * number // (_PARTS - 1), os.SEEK_SET)
            yield opened.read(_PART_BYTES)
