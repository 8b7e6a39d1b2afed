"""Refuses checkpoints of other architectures and of older revisions. Their code is read, never run."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflow_blocks.moondream2.config import Moondream2Config, Templates, TokenizerConfig

# The code that comes with published weights has the token ids of their revision in this file.
CODE_CONFIG_FILE = "config.py"
ARCHITECTURE = "HfMoondream"

_RELEASED = TokenizerConfig()


class RevisionError(ValueError):
    """A checkpoint is of another architecture or revision than this runtime; the message says which."""


class DamagedCodeError(RevisionError):
    """The code beside the weights is damaged, so their revision is not known."""


def check_revision(config_file: Path, config: Moondream2Config) -> None:
    """Checks what lies beside the weights, as far as it is there.

    The tensors of an older revision have the names and shapes of the released one, but other token ids: it
    would load and answer nonsense.

    Args:
        config_file: a checkpoint's `config.json`.
        config: what was read from it.

    Raises:
        RevisionError: it names another architecture, or the `config.py` beside it has other token ids.
        DamagedCodeError: that file cannot be read.
    """
    architectures = json.loads(config_file.read_bytes()).get("architectures") or [ARCHITECTURE]
    if not isinstance(architectures, list) or ARCHITECTURE not in architectures:
        raise RevisionError(
            f"{config_file} names the architecture {architectures!r}; this runtime reads {ARCHITECTURE!r}"
        )
    code = config_file.with_name(CODE_CONFIG_FILE)
    if not code.is_file():
        return
    for name, value in _token_ids(code):
        if name == "templates":
            is_known = config.tokenizer.templates != Templates() or _templates(value) == Templates()
        else:
            is_known = value in (getattr(_RELEASED, name), getattr(config.tokenizer, name))
        if not is_known:
            raise RevisionError(
                f"{code} has {name} {value!r}, and the revision of 2025-06-21 has "
                f"{getattr(_RELEASED, name)!r}; these weights are of another revision"
            )


def _token_ids(code: Path) -> Iterator[tuple[str, Any]]:
    """The token ids that the class `TokenizerConfig` has by default, as far as they are literals."""
    try:
        module = ast.parse(code.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DamagedCodeError(
            f"{code} is not a Python file, so the revision is not known: {error}"
        ) from error
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name == TokenizerConfig.__name__:
            for statement in node.body:
                yield from _default(statement)


def _default(statement: ast.stmt) -> Iterator[tuple[str, Any]]:
    """The name and the default of a field `name: type = default`, if it is a token id."""
    if not isinstance(statement, (ast.AnnAssign, ast.Assign)):
        return
    target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
    default = statement.value
    if isinstance(default, ast.Call):  # field(default_factory=lambda: {...})
        factories = [keyword.value for keyword in default.keywords if keyword.arg == "default_factory"]
        default = factories[0].body if factories and isinstance(factories[0], ast.Lambda) else None
    if isinstance(target, ast.Name) and target.id in TokenizerConfig.model_fields and default is not None:
        try:
            yield target.id, ast.literal_eval(default)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return


def _templates(value: Any) -> Templates | None:
    try:
        return Templates.model_validate(value)
    except ValidationError:
        return None
