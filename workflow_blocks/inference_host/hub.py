"""Downloads files of the Hugging Face hub, and says clearly why it cannot."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

RELEASED_WEIGHTS = "vikhyatk/moondream2"
RELEASED_REVISION = "2025-06-21"
RELEASED_TOKENIZER = "moondream/starmie-v1"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class HubError(ValueError):
    """A file cannot be fetched from the hub; the message says why and how to fix it."""


def download_folder(hub_id: str, revision: str | None, patterns: list[str]) -> Path:
    """Downloads the files of a repository whose names match.

    Raises:
        HubError: they cannot be downloaded.
    """
    with _hub_errors(hub_id, revision):
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))


def cached_file(hub_id: str, name: str, cache_folder: str | None = None) -> Path:
    """A file of a repository that was downloaded before; see `download_file`.

    Raises:
        HubError: it is not in the cache.
    """
    with _hub_errors(hub_id, None):
        return Path(hf_hub_download(hub_id, name, cache_dir=cache_folder, local_files_only=True))


def download_file(hub_id: str, name: str, cache_folder: str | None = None, again: bool = False) -> Path:
    """Downloads a file of a repository.

    Args:
        hub_id: the repository.
        name: the file.
        cache_folder: where it is stored; by default in the cache of the hub's library.
        again: whether it is downloaded even if it is in the cache, where it may be damaged.

    Raises:
        HubError: it cannot be downloaded.
    """
    with _hub_errors(hub_id, None):
        return Path(hf_hub_download(hub_id, name, cache_dir=cache_folder, force_download=again))


@contextmanager
def _hub_errors(hub_id: str, revision: str | None) -> Iterator[None]:
    if not _HUB_ID.fullmatch(hub_id):
        raise HubError(f"{hub_id} is neither a folder nor a hub id such as {RELEASED_WEIGHTS}")
    at = f"{hub_id} (revision {revision})" if revision else hub_id
    try:
        yield
    except GatedRepoError as error:
        raise HubError(f"{hub_id} is gated; ask for access on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"{hub_id} has no revision {revision!r}; the released one is {RELEASED_REVISION}"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError(
            f"{hub_id} is neither a folder nor a repository on the hub that you may read"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        reason = _reason(error)
        no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "free some space" if no_space else "check the network, or give a folder that holds it"
        raise HubError(f"{at} could not be downloaded: {reason}; {fix}") from error


def _reason(error: Exception) -> str:
    """Why a download failed, in one line."""
    if isinstance(error, RuntimeError):  # the library's second try after a refused connection raises it
        return "the hub cannot be reached"
    if isinstance(error, ValueError) and isinstance(error.__cause__, Exception):  # `force_download` failed
        return _reason(error.__cause__)
    return str(error).splitlines()[0] if str(error) else type(error).__name__
