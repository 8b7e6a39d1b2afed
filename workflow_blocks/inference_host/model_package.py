"""Builds local model packages, which Inference's model manager loads, from published weights."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from inference_models.models.auto_loaders.entities import MODEL_CONFIG_FILE_NAME

from workflow_blocks.moondream2.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    CheckpointError,
    read_tokenizer,
    read_weights,
    weight_files,
)
from workflow_blocks.moondream2.config import Moondream2Config

RELEASED_WEIGHTS = "vikhyatk/moondream2"
RELEASED_REVISION = "2025-06-21"
RELEASED_TOKENIZER = "moondream/starmie-v1"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# What makes a checkpoint a package is the same in every package, so it is copied from the bundled one.
_BUNDLED_PACKAGE = Path(__file__).parents[1] / "demo_model"
_PACKAGE_FILES = (MODEL_CONFIG_FILE_NAME, "model.py")


class PackageError(ValueError):
    """A package cannot be built; the message says why and how to fix it."""


def find_weights(weights: str, revision: str | None) -> Path:
    """A folder of published weights: a local one, or one fetched from the hub.

    Raises:
        PackageError: there is no such folder, and it cannot be downloaded.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise PackageError(f"--revision is for a hub id, and {weights} is a folder; leave one out")
        return folder
    return _download(
        weights,
        revision or RELEASED_REVISION,
        [CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, "model-*.safetensors"],
    )


def find_tokenizer(tokenizer: str | None, weights: str) -> Path:
    """A tokenizer's file: the one named, else that beside local weights, else the released one.

    Raises:
        PackageError: it cannot be downloaded.
    """
    if tokenizer is None:
        beside = Path(weights).expanduser() / TOKENIZER_FILE
        if beside.is_file():
            return beside
        tokenizer = RELEASED_TOKENIZER
    path = Path(tokenizer).expanduser()
    if path.is_file():
        return path
    folder = path if path.is_dir() else _download(tokenizer, None, [TOKENIZER_FILE])
    return folder / TOKENIZER_FILE


def build_package(
    weights: Path, tokenizer: Path, output: Path, on_checked: Callable[[int], None] = lambda n_bytes: None
) -> bool:
    """Checks a checkpoint and builds a package from it; weights are linked if possible, else copied.

    Args:
        weights: a folder with `config.json` and safetensors.
        tokenizer: a `tokenizer.json`.
        output: the package's folder; it must not exist, or be empty.
        on_checked: called with the size in bytes of each tensor that was checked.

    Returns:
        Whether all weights could be linked rather than copied.

    Raises:
        PackageError, CheckpointError, ConfigError: nothing was written.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise PackageError(f"{output} exists already; choose another --output or remove it")
    config = Moondream2Config.from_file(weights / CONFIG_FILE)
    read_tokenizer(tokenizer, config)
    for name, tensor in read_weights(weights, config):
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{weights}: tensor {name!r} holds values that are not finite; fetch it again"
            )
        on_checked(tensor.nbytes)
    copied = {CONFIG_FILE: weights / CONFIG_FILE, TOKENIZER_FILE: tokenizer}
    if not (weights / WEIGHTS_FILE).is_file():
        copied[WEIGHTS_INDEX_FILE] = weights / WEIGHTS_INDEX_FILE
    try:
        return _write_package(copied, weight_files(weights), output)
    except OSError as error:
        fix = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another --output"
        raise PackageError(f"{output} cannot be written: {error.strerror or error}; {fix}") from error


def _write_package(copied: dict[str, Path], linked: list[Path], output: Path) -> bool:
    """Writes to a temporary folder and renames it, so that no partial package is ever visible."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for name, source in copied.items():
            shutil.copyfile(source, partial / name)
        were_linked = [_link_or_copy(source.resolve(), partial / source.name) for source in linked]
        write_package_files(partial)
        partial.chmod(0o755)  # `mkdtemp` lets only its owner in; Inference may run as another user
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return all(were_linked)


def _link_or_copy(source: Path, target: Path) -> bool:
    """Links the target to the source, or copies it; returns whether it is a link."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        if source.stat().st_size > shutil.disk_usage(target.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        shutil.copyfile(source, target)
        return False
    return True


def _download(hub_id: str, revision: str | None, patterns: list[str]) -> Path:
    if not _HUB_ID.fullmatch(hub_id):
        raise PackageError(f"{hub_id} is neither a folder nor a hub id such as {RELEASED_WEIGHTS}")
    at = f"{hub_id} (revision {revision})" if revision else hub_id
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise PackageError(f"{hub_id} is gated; ask for access on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise PackageError(
            f"{hub_id} has no revision {revision!r}; the released one is {RELEASED_REVISION}"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise PackageError(
            f"{hub_id} is neither a folder nor a repository on the hub that you may read"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PackageError(
            f"{at} could not be downloaded: {reason}; check the network, or give a folder that holds it"
        ) from error


def write_package_files(folder: Path) -> None:
    """Writes the two files that make a checkpoint's folder a package of this plugin's runtime."""
    for name in _PACKAGE_FILES:
        (folder / name).write_bytes((_BUNDLED_PACKAGE / name).read_bytes())
