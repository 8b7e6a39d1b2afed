"""The folders that the steps of a workflow write to."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_blocks.running.parameters import objects_in, values_in_force

_FILE_SINK = "roboflow_core/local_file_sink@v1"
_DEFAULT_PREFIX = "workflow_output"  # of that block
# What it adds to the prefix: the time, and the type of the file.
_TIME_AND_TYPE = re.compile(r"_\d{4}(_\d\d){5}_\d{6}\.\w+", re.ASCII)


@dataclass(frozen=True)
class SinkFolder:
    """A folder that a step writes to.

    Inference's local file sink writes files whose names begin with `prefix`; of other steps it is None, and
    all that comes to the folder in a run is taken for theirs.
    """

    path: Path
    prefix: str | None = None

    def files(self) -> Iterator[Path]:
        """What is there and may be of the step: files, and folders in which there is nothing."""
        if self.prefix is None:
            for path in self.path.rglob("*"):
                if not path.is_dir() or not any(path.iterdir()):
                    yield path
        elif self.path.is_dir():
            for path in self.path.iterdir():
                name = path.name
                if name.startswith(self.prefix) and _TIME_AND_TYPE.fullmatch(name[len(self.prefix) :]):
                    yield path


def sink_folders(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[SinkFolder]:
    """The folders that the steps' fields named `..._directory` hold, themselves or by a parameter."""
    values = {f"$inputs.{name}": value for name, value in values_in_force(definition, parameters).items()}
    folders = []
    for step in objects_in(definition.get("steps")):
        prefix = _value(values, step.get("file_name_prefix", _DEFAULT_PREFIX))
        is_file_sink = step.get("type") == _FILE_SINK and prefix is not None
        for name, field in step.items():
            place = _value(values, field) if name.endswith("_directory") else None
            if place is not None:
                path = Path(os.path.expanduser(place))  # noqa: PTH111
                folders.append(SinkFolder(path, prefix if is_file_sink else None))
    return folders


def _value(values: Mapping[str, Any], field: object) -> str | None:
    """What a field holds, itself or by a parameter; None if no text is known."""
    value = values.get(field, field) if isinstance(field, str) else None
    return value if isinstance(value, str) and not value.startswith("$") else None
