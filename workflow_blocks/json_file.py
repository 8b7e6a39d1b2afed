"""Reads JSON that people give. A key that is there twice is an error: its first value would be lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class DuplicateKeyError(ValueError):
    """An object has a key twice; the message names it."""


def parse_json(content: str | bytes, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text; `parse_constant` is that of `json.loads`.

    Raises:
        DuplicateKeyError: an object has a key twice.
        ValueError: it is not JSON.
    """
    return json.loads(content, object_pairs_hook=_with_different_keys, parse_constant=parse_constant)


def _with_different_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise DuplicateKeyError(f"the key {double!r} is there twice in one object")
    return entries


def read_json(file: Path, error_type: type[Exception]) -> Any:
    """The content of a JSON file, which may start with a byte order mark.

    Raises:
        Exception: of `error_type`, with the file's name: it cannot be read, is not JSON, or has a key twice.
    """
    try:
        return parse_json(file.read_bytes())
    except OSError as error:
        raise error_type(f"{file} cannot be read: {error.strerror}") from error
    except DuplicateKeyError as error:
        raise error_type(f"{file}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise error_type(f"{file} is not JSON: {error}") from error
