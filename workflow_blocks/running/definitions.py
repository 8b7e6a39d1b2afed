"""Reads workflow definitions: bundled ones by name, others from files."""

from pathlib import Path
from typing import Any

from workflow_blocks.json_file import read_json
from workflow_blocks.running.errors import RunError


def read_definition(name: str) -> dict[str, Any]:
    """Reads a bundled definition by its name, or a definition's file.

    A file may start with a byte order mark. It may hold the definition itself, or an object with the
    definition as `specification`, as Roboflow's app exports it.

    Raises:
        RunError: there is no such file, or it holds no definition.
    """
    file = workflow_file(name) if name in workflow_names() else Path(name)
    try:
        is_there = file.is_file()
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from error
    if not is_there:
        raise RunError(f"no workflow {name}; name a file, or one of: {', '.join(workflow_names())}")
    definition = read_json(file, RunError)
    if isinstance(definition, dict) and "steps" not in definition:
        definition = definition.get("specification", definition)
    if not isinstance(definition, dict):
        raise RunError(f"{file} holds no workflow definition")
    return definition


def workflow_file(name: str) -> Path:
    """The path of a workflow definition that comes with this package, by its name without `.json`."""
    return _workflow_folder() / f"{name}.json"


def workflow_names() -> list[str]:
    """The names of the workflow definitions that come with this package."""
    return sorted(path.stem for path in _workflow_folder().glob("*.json"))


def _workflow_folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "workflows"
    return installed if installed.is_dir() else package.parent / "workflows"
