"""Builds local model packages, which Inference's model manager loads, from published weights."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from inference_models.models.auto_loaders.entities import MODEL_CONFIG_FILE_NAME

from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.hub import RELEASED_REVISION, download_file, download_folder
from workflow_blocks.inference_host.tokenizer import find_fitting_tokenizer
from workflow_blocks.moondream2.checkpoint import (
    CONFIG_FILE,
    SHARDS,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    WEIGHTS_INDEX_FILE,
    read_tokenizer,
    read_weights,
    weight_files,
)
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.revision import CODE_CONFIG_FILE, check_revision

# What makes a checkpoint a package is the same in every package, so it is copied from the bundled one.
_PACKAGE_FILES = (MODEL_CONFIG_FILE_NAME, "model.py")


class PackageError(ValueError):
    """A package cannot be built; the message says why and how to fix it."""


def find_weights(weights: str, revision: str | None) -> Path:
    """A folder of published weights: a local one, or one fetched from the hub.

    Raises:
        PackageError: `revision` is given for a folder.
        HubError: there is no such folder, and it cannot be downloaded.
    """
    folder = Path(weights).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise PackageError(f"--revision is for a hub id, and {weights} is a folder; leave one out")
        return folder
    return download_folder(
        weights,
        revision or RELEASED_REVISION,
        [CONFIG_FILE, CODE_CONFIG_FILE, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, SHARDS],
    )


def find_tokenizer(tokenizer: str | None, weights: Path) -> Path:
    """A tokenizer's file: the one named, else that beside the weights if it fits, else the released one.

    Args:
        tokenizer: a file, a folder or a hub id.
        weights: the folder of the weights.

    Raises:
        HubError: the one named cannot be downloaded.
        TokenizerError: none is named, and there is none that fits.
        ConfigError: the weights' `config.json` cannot be used.
    """
    if tokenizer is None:
        return find_fitting_tokenizer(weights, Moondream2Config.from_file(weights / CONFIG_FILE))
    path = Path(tokenizer).expanduser()
    if path.is_file():
        return path
    return path / TOKENIZER_FILE if path.is_dir() else download_file(tokenizer, TOKENIZER_FILE)


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
        PackageError, CheckpointError, ConfigError, RevisionError: nothing was written.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise PackageError(f"{output} exists already; choose another --output or remove it")
    config = Moondream2Config.from_file(weights / CONFIG_FILE)
    check_revision(weights / CONFIG_FILE, config)
    read_tokenizer(tokenizer, config)
    for _, tensor in read_weights(weights, config):
        on_checked(tensor.nbytes)
    copied = {CONFIG_FILE: weights / CONFIG_FILE, TOKENIZER_FILE: tokenizer}
    if not (weights / WEIGHTS_FILE).is_file() and (weights / WEIGHTS_INDEX_FILE).is_file():
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


def write_package_files(folder: Path) -> None:
    """Writes the two files that make a checkpoint's folder a package of this plugin's runtime."""
    for name in _PACKAGE_FILES:
        (folder / name).write_bytes((demo_model_folder() / name).read_bytes())
