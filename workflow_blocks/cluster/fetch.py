"""Reads image files from wherever their addresses point."""

from pyarrow.fs import FileType

from workflow_blocks.cluster.addresses import AddressError, place_of, without_secrets
from workflow_blocks.cluster.retries import SECONDS, retrying

# A batch of files of this size must fit into memory.
MAX_FILE_BYTES = 256 * 2**20


class FetchError(Exception):
    """A file cannot be read; the message says why, without credentials."""


def fetch(uri: str, seconds: float = SECONDS) -> bytes:
    """The content of a file.

    Args:
        uri: an address such as `s3://bucket/key`, or an absolute path.
        seconds: how long a read is repeated while storage does not answer.

    Raises:
        FetchError: it cannot be read, or is larger than `MAX_FILE_BYTES`.
    """
    if not uri:
        raise FetchError("no URI")
    if "://" not in uri and not uri.startswith("/"):
        raise FetchError("a relative path; give an absolute path or a URI")
    try:
        return retrying(lambda: _read(uri), seconds)
    except FileNotFoundError as error:
        raise FetchError("missing: there is no such file") from error
    except AddressError as error:
        raise FetchError(str(error)) from error
    except OSError as error:
        raise FetchError(f"unreadable: {without_secrets(error.strerror or str(error))}") from error
    except FetchError:
        raise
    except Exception as error:  # fsspec's filesystems raise errors of their own
        reason = without_secrets(str(error) or type(error).__name__)
        raise FetchError(f"unreadable: {reason}") from error


def _read(uri: str) -> bytes:
    place = place_of(uri)
    if place.is_local:
        kind = place.filesystem.get_file_info(place.path).type
        if kind == FileType.Directory:
            raise FetchError("a folder, not a file")
        if kind == FileType.Unknown:  # reading a pipe or a device may never end
            raise FetchError("a pipe, socket or device, not a file")
    with place.filesystem.open_input_file(place.path) as file:
        if file.size() > MAX_FILE_BYTES:
            raise FetchError(f"larger than {MAX_FILE_BYTES:,} bytes")
        return bytes(file.read())
