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


def download_file(
    hub_id: str, name: str, cache_folder: str | None = None, local_files_only: bool = False
) -> Path:
    """Downloads a file of a repository, or takes it from the cache if the hub cannot be reached.

    Args:
        hub_id: the repository.
        name: the file.
        cache_folder: where it is stored; by default in the cache of the hub's library.
        local_files_only: whether it is only looked for in the cache.

    Raises:
        HubError: it can neither be downloaded nor is it in the cache.
    """
    with _hub_errors(hub_id, None):
        return Path(hf_hub_download(hub_id, name, cache_dir=cache_folder, local_files_only=local_files_only))


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
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "free some space" if no_space else "check the network, or give a folder that holds it"
        raise HubError(f"{at} could not be downloaded: {reason}; {fix}") from error
