"""Writes files that are either complete or absent."""

import os
import tempfile
from pathlib import Path


def write_temporary(folder: Path, content: bytes) -> Path:
    """Writes a new file of a random name in `folder`; the caller renames it to where it belongs.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)  # `mkstemp` lets only its owner read
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file, replacing any file there.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    temporary = write_temporary(path.parent, content)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
