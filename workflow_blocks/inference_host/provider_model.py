"""The class that stands in Inference's registry for the provider's Moondream2."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from inference_models.configuration import DEFAULT_DEVICE, HF_HUB_CACHE
from inference_models.errors import CorruptedModelPackageError
from inference_models.models.moondream2.moondream2_hf import MoonDream2HF
from tokenizers import Tokenizer

from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.inference_host.model import Moondream2Model
from workflow_blocks.inference_host.runtime_choice import SETTING, chosen_runtime
from workflow_blocks.inference_host.tokenizer import find_fitting_tokenizer
from workflow_blocks.moondream2.checkpoint import (
    CheckpointError,
    DamagedError,
    TokenizerError,
    read_tokenizer,
)
from workflow_blocks.moondream2.config import ConfigError, DamagedConfigError, Moondream2Config
from workflow_blocks.moondream2.revision import DamagedCodeError, RevisionError

_LOGGER = logging.getLogger(__name__)
_HELP = "https://inference-models.roboflow.com/errors/model-loading/#corruptedmodelpackageerror"

# Reasons that were logged, so that each is logged once.
_logged: set[str] = set()


class ProviderMoondream2:
    """Loads a downloaded package with this plugin's runtime or, if allowed, with Inference's own class."""

    @classmethod
    def from_pretrained(
        cls,
        model_name_or_path: str,
        device: torch.device = DEFAULT_DEVICE,
        local_files_only: bool = False,
        **options: Any,
    ) -> Moondream2Model | MoonDream2HF:
        """Loads a package folder. Nothing is written into it.

        Args:
            model_name_or_path: the folder.
            device: where to run, unless `MOONDREAM2_DEVICE` says otherwise.
            local_files_only: whether nothing may be downloaded; Inference sets it when it is offline.
            options: what else Inference passes; only its own class gets them.

        Raises:
            CorruptedModelPackageError: the package is damaged, its tokenizer cannot be had, or it cannot be
                read by a runtime that `MOONDREAM2_RUNTIME` allows.
            SettingsError: a `MOONDREAM2_*` variable has an invalid value.
            RuntimeChoiceError: the same for `MOONDREAM2_RUNTIME`.
        """
        choice = chosen_runtime()
        if choice == "inference":
            return MoonDream2HF.from_pretrained(model_name_or_path, device=device, **options)
        find_tokenizer = partial(_find_tokenizer, local_files_only=local_files_only)
        try:
            folder = Path(model_name_or_path)
            return Moondream2Model(load_runtime(folder, device, find_tokenizer), folder.name)
        except (DamagedError, DamagedConfigError, DamagedCodeError, TokenizerError) as error:
            # Not a reason to run foreign code: a new download, or the network, is what it takes.
            raise _refusal(str(error)) from error
        except (CheckpointError, ConfigError, RevisionError) as error:
            if choice == "own":
                raise _refusal(f"{error}; {SETTING}=own does not allow Inference's own class") from error
            return _load_with_inferences_class(model_name_or_path, device, error, options)


def _find_tokenizer(folder: Path, config: Moondream2Config, local_files_only: bool) -> Tokenizer:
    return read_tokenizer(find_fitting_tokenizer(folder, config, HF_HUB_CACHE, local_files_only), config)


def _load_with_inferences_class(
    folder: str, device: torch.device, reason: Exception, options: dict[str, Any]
) -> MoonDream2HF:
    """Loads the package as Inference does without this plugin, and logs why."""
    if str(reason) not in _logged:
        _logged.add(str(reason))
        _LOGGER.warning(
            "This plugin's runtime cannot read a Moondream2 package: %s. Inference's own class loads it, "
            "which runs the Python code of the package. %s=own refuses such packages.",
            reason,
            SETTING,
        )
    try:
        return MoonDream2HF.from_pretrained(folder, device=device, **options)
    except Exception as error:  # the code of the package can raise anything
        raise _refusal(f"{reason}; Inference's own class cannot load it either: {error}") from error


def _refusal(message: str) -> CorruptedModelPackageError:
    return CorruptedModelPackageError(message=message, help_url=_HELP)
