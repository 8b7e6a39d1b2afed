"""Loads the runtime with the settings of the environment."""

from pathlib import Path

import torch

from workflow_blocks.moondream2.checkpoint import load_tokenizer
from workflow_blocks.moondream2.runtime import FindTokenizer, Runtime
from workflow_blocks.moondream2.settings import load_settings


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
        SettingsError: a `MOONDREAM2_*` variable has an invalid value.
    """
    settings = load_settings()
    device = settings.device_or(default_device)
    runtime = Runtime.from_folder(
        folder,
        device,
        settings.dtype_of(folder, device),
        find_tokenizer,
        memory=settings.working_memory_on(device),
        cache_bytes=settings.image_cache_bytes,
        refine_boxes=settings.refine_boxes,
    )
    if settings.compile:
        runtime.model.compile_blocks()
    return runtime
