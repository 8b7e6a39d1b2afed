"""Loads the runtime with the settings of the environment."""

from pathlib import Path

import torch

from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, load_tokenizer
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.runtime import FindTokenizer, Runtime
from workflow_blocks.moondream2.settings import load_settings
from workflow_blocks.moondream2.weight_memory import check_memory


def check_runtime_settings(default_device: str | torch.device) -> None:
    """Checks before any model is loaded what does not depend on the model. It compiles nothing.

    Raises:
        SettingsError: a `MOONDREAM2_*` variable is invalid, or does not work on this machine.
    """
    settings = load_settings()
    device = settings.device_or(default_device)
    if settings.dtype != "auto":
        settings.check_dtype_on(device, getattr(torch, settings.dtype))


def load_runtime(
    folder: Path, default_device: str | torch.device, find_tokenizer: FindTokenizer = load_tokenizer
) -> Runtime:
    """Loads a checkpoint folder with the settings applied.

    Args:
        folder: the folder.
        default_device: where to run, unless `MOONDREAM2_DEVICE` says otherwise.
        find_tokenizer: gives the tokenizer; by default the file in the folder.

    Raises:
        CheckpointError, ConfigError: the checkpoint is incomplete or damaged.
        RevisionError: it is of another architecture or revision.
        SettingsError: a `MOONDREAM2_*` variable is invalid, or does not work on this machine.
    """
    settings = load_settings()
    device = settings.device_or(default_device)
    config = Moondream2Config.from_file(folder / CONFIG_FILE)
    dtype = settings.dtype_of(config, device)
    settings.check_on(device, dtype)
    check_memory(config, device, dtype, settings.dtype)
    return Runtime.from_folder(
        folder,
        device,
        dtype,
        find_tokenizer,
        compile=settings.compile,
        memory=settings.working_memory_on(device),
        cache_bytes=settings.image_cache_bytes,
        refine_boxes=settings.refine_boxes,
        max_crops=settings.max_crops,
        join_calls=settings.join_requests,
    )
