"""Finds the tokenizer of published weights: the file beside them often belongs to an older model."""

from pathlib import Path

from workflow_blocks.inference_host.hub import RELEASED_TOKENIZER, HubError, cached_file, download_file
from workflow_blocks.moondream2.checkpoint import TOKENIZER_FILE, TokenizerError, read_tokenizer
from workflow_blocks.moondream2.config import Moondream2Config


def find_fitting_tokenizer(
    weights: Path, config: Moondream2Config, cache_folder: str | None = None, local_files_only: bool = False
) -> Path:
    """The file beside the weights if it fits the model, else the released one from the hub.

    Args:
        weights: the folder of the weights.
        config: the model.
        cache_folder: where the hub's file is stored; by default in the cache of the hub's library.
        local_files_only: whether nothing may be downloaded.

    Raises:
        TokenizerError: neither can be used; names both.
    """
    beside = weights / TOKENIZER_FILE
    try:
        read_tokenizer(beside, config)
    except TokenizerError as error:
        reason = str(error)
    else:
        return beside
    try:
        return _released_tokenizer(config, cache_folder, local_files_only)
    except (HubError, TokenizerError) as error:
        raise TokenizerError(
            f"there is no tokenizer for this model: {reason}; and the released one, {error}"
        ) from error


def _released_tokenizer(config: Moondream2Config, cache_folder: str | None, local_files_only: bool) -> Path:
    """The released tokenizer, from the cache or else from the hub."""
    try:
        file = cached_file(RELEASED_TOKENIZER, TOKENIZER_FILE, cache_folder)
        read_tokenizer(file, config)
    except (HubError, TokenizerError) as error:
        if local_files_only:
            raise
        is_damaged = isinstance(error, TokenizerError)
        file = download_file(RELEASED_TOKENIZER, TOKENIZER_FILE, cache_folder, again=is_damaged)
        read_tokenizer(file, config)
    return file
