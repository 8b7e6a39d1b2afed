"""What the detections of an evaluation come from, beside its definition: the weights and the settings."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow_blocks.inference_host.runtime_choice import chosen_runtime
from workflow_blocks.moondream2.settings import load_settings
from workflow_blocks.package_ids import folder_of
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.parameters import objects_in

# The settings that change what is found.
_SETTINGS = {"dtype", "max_crops", "refine_boxes"}
_SERVER = "MOONDREAM2_API_URL"
_FILES = ("config.json", "tokenizer.json", "*.safetensors")
# Training changes all of the weights: parts of a large file tell it from another.
_PARTS, _PART_BYTES = 32, 2**16


def runtime_facts(models: Iterable[str]) -> dict[str, Any]:
    """Where the models run: on which server, or here with which weights, runtime and settings.

    Raises:
        SettingsError: an environment variable of this plugin is invalid.
        RunError: the files of a model cannot be read.
    """
    if server := os.environ.get(_SERVER):
        # Nobody here knows its weights. The address may be a wrong one with a password in it.
        return {"server": hashlib.sha256(server.strip().rstrip("/").encode()).hexdigest()}
    folders = {model: Path(folder_of(model) or model) for model in models}
    return {
        "weights": {model: fingerprint(folder) for model, folder in folders.items() if _is_folder(folder)},
        "runtime": chosen_runtime(),
        "settings": load_settings().model_dump(include=_SETTINGS),
    }


def models_of(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """The models that the steps of a workflow name, themselves or by a parameter.

    A wrong definition is not refused here: the engine says what is wrong.
    """
    values = {
        f"$inputs.{entry.get('name')}": parameters.get(str(entry.get("name")), entry.get("default_value"))
        for entry in objects_in(definition.get("inputs"))
    }
    named = [step.get("model_version") for step in objects_in(definition.get("steps"))]
    given = [values.get(name, name) for name in named if isinstance(name, str)]
    return list(dict.fromkeys(model for model in given if isinstance(model, str)))


def fingerprint(folder: Path) -> str:
    """A hash of a package's sizes and of parts of its files.

    Raises:
        RunError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for pattern in _FILES:
            for file in sorted(folder.glob(pattern)):
                digest.update(f"{file.name} {file.stat().st_size} ".encode("utf-8", "surrogateescape"))
                for part in _parts(file):
                    digest.update(part)
    except OSError as error:
        raise RunError(f"the model {folder} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have; the engine says what is wrong with it
        return False


def _parts(file: Path) -> Iterator[bytes]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        for number in range(_PARTS):
            opened.seek(max(0, size - _PART_BYTES) * number // (_PARTS - 1), os.SEEK_SET)
            yield opened.read(_PART_BYTES)
