"""Addresses of files and folders: local paths and URIs of object storage, without credentials.

What follows the bucket is taken as it is: a key with a blank or a `%` is written as it is, not escaped. Only
`file://` addresses are escaped, so that names that are not UTF-8 have one.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from pyarrow.fs import FileSystem, FSSpecHandler, GcsFileSystem, LocalFileSystem, PyFileSystem

from workflow_blocks.blocks.common.masking import MASK, Mask

# At least two letters, so that a Windows drive is not a scheme.
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+)://")
# For these, `host:port` before a path is no user with a password.
_HOST = r"(?:https?|hdfs|webhdfs|viewfs|s?ftp|ssh|smb)://(?:\[[^\]\s]*\]|[^\s/?#@:]*)(?::\d{1,5})?[/?#]"
# For these, what stands before `@` is a container, and no user.
_CONTAINER_BEFORE_AT = ("abfs", "abfss", "wasb", "wasbs")
_CONTAINER = rf"(?:{'|'.join(_CONTAINER_BEFORE_AT)})://[^\s/?#@:]*@"


def _user(character: str) -> re.Pattern[str]:
    """Finds a scheme and a user, with a password that may have `/`, `?` and `@` in it, unescaped."""
    user = rf"[^/?#@]*?(?::|%3a){character}*@|[^/?#]*@"
    if character == r"\S":
        user = user.replace("[^", r"[^\s")
    return re.compile(
        rf"(?<![a-z0-9+.-])(?!{_HOST})(?!{_CONTAINER})([a-z][a-z0-9+.-]+://)(?:{user})", re.I | re.S
    )


_USER = _user(".")
_USER_IN_TEXT = _user(r"\S")
_FIELD = re.compile(r"""([?&;#])([^=?&;#/\s"'<>]+)=([^&;#\s"'<>]*)""")
_SECRET_FIELD = re.compile(
    r"(?i).*(secret|token|signature|passw|passphrase|credential|access_?key|api_?key|hmac).*|x-(amz|goog)-.*"
    r"|(.*[_.-])?(sig|key|auth|authorization|bearer|jwt|pwd|pass|sas|session_?id)"
    r"|(account|auth|private|shared|signing|storage|subscription)_?key"
)
_OF_BUCKETS = ("s3", "gs", "gcs")
_GCS_SECONDS = 15
_SECRET_VARIABLE = re.compile(
    r"(?i)^(aws|azure|google|gcs|hf|moondream2|roboflow|fsspec)_.*(key|token|secret|password|sas)"
)


class AddressError(Exception):
    """An address cannot be used; the message says why."""


@dataclass(frozen=True)
class Place:
    """A file or folder: its filesystem, and its path there."""

    filesystem: FileSystem
    path: str

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def has_folders(self) -> bool:
        """Whether folders must be created before files; object storage has none."""
        return str(self.filesystem.type_name) not in ("s3", "gcs")


def place_of(address: str) -> Place:
    """Finds the filesystem of an address.

    Args:
        address: a local path, `file://...`, `s3://...`, or any other address that pyarrow or fsspec know.

    Raises:
        AddressError: it has credentials in it, or its scheme is unknown here.
    """
    if has_credentials(address):
        raise AddressError(
            f"{without_credentials(address)} has credentials in it; remove them, and give them as "
            "environment variables, as a profile or as a role"
        )
    found = _SCHEME.match(address)
    if not found:
        return Place(_local(), str(Path(address).expanduser().absolute()))
    scheme, rest = found[1].lower(), address[found.end() :]
    if scheme == "file":
        return Place(_local(), os.fsdecode(unquote_to_bytes("/" + rest.partition("/")[2])))
    bucket, _, key = rest.partition("/")
    if not bucket and scheme in _OF_BUCKETS:
        raise AddressError(f"{address} names no bucket; give {scheme}://BUCKET/PREFIX")
    filesystem, base = _remote(scheme, bucket)
    return Place(filesystem, f"{base.rstrip('/')}/{key}".strip("/") if key else base)


def resolved(address: str) -> str:
    """The address by which equal places are told: absolute, without links and without a last slash.

    Raises:
        AddressError: see `place_of`.
    """
    place = place_of(address)
    return os.path.realpath(place.path) if place.is_local else address.rstrip("/")


def address_in(address: str, path: str) -> str:
    """The address of a path that was found in the folder of `address`."""
    found = _SCHEME.match(address)
    if not found or found[1].lower() == "file":
        return Path(path).as_uri()
    if found[1].lower() in _CONTAINER_BEFORE_AT:
        bucket = address[found.end() :].partition("/")[0]
        return f"{found[0]}{bucket}/{path.partition('/')[2]}"
    return found[0] + path.lstrip("/")


def has_credentials(address: str) -> bool:
    """Whether an address, or one in it as in `simplecache::s3://...`, holds a user, a key or a signature."""
    if not _SCHEME.search(address):
        return False
    return bool(_USER.search(address)) or any(map(_is_secret, _FIELD.finditer(address)))


def without_credentials(address: str) -> str:
    """An address that may be shown: without a user and, if it has credentials, without its query."""
    if not has_credentials(address):
        return address
    shown = _USER.sub(r"\1", address).partition("?")[0]
    secret = next(filter(_is_secret, _FIELD.finditer(shown)), None)
    return shown[: secret.start()] if secret else shown


def without_secrets(text: str) -> str:
    """A text of others, such as the error of a library, without the credentials of this process."""
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.match(name) and len(value) >= 8 and value in text:
            text = Mask(value)(text)
    text = _USER_IN_TEXT.sub(r"\1", text)
    return _FIELD.sub(lambda field: f"{field[1]}{field[2]}={MASK}" if _is_secret(field) else field[0], text)


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a key, a token or the like."""
    return _SECRET_FIELD.fullmatch(name) is not None


def _is_secret(field: re.Match[str]) -> bool:
    return is_secret_name(unquote(field[2]))


def name_of(address: str) -> str:
    """The name of a file: what follows the last slash; only `file://` addresses are escaped."""
    name = address.rpartition("/")[2]
    return os.fsdecode(unquote_to_bytes(name)) if address.lower().startswith("file://") else name


@cache
def _local() -> LocalFileSystem:
    return LocalFileSystem()


@cache
def _remote(scheme: str, bucket: str) -> tuple[FileSystem, str]:
    """The filesystem of a bucket, and the bucket's path in it."""
    if scheme == "s3":
        return _s3(bucket), bucket
    if scheme in ("gs", "gcs"):  # by default it tries for 15 minutes
        return GcsFileSystem(retry_time_limit=timedelta(seconds=_GCS_SECONDS)), bucket
    try:
        filesystem, base = FileSystem.from_uri(f"{scheme}://{bucket}/")
        return filesystem, str(base)
    except Exception as error:  # pyarrow raises several types for a scheme that it does not know
        return _of_fsspec(scheme, bucket, error)


def _s3(bucket: str) -> FileSystem:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    options: dict[str, Any] = {
        "retry_strategy": AwsStandardS3RetryStrategy(max_attempts=3),
        "connect_timeout": 10,
        "request_timeout": 60,
        "allow_delayed_open": True,  # one request for a small file, not three
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:  # pyarrow reads the other variables of AWS itself
        scheme, _, host = endpoint.rpartition("://")
        options |= {"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    elif not endpoint:
        with suppress(OSError):  # a bucket that is not there, or no network: reading it says so
            options["region"] = resolve_s3_region(bucket)
    return S3FileSystem(**options)


def _of_fsspec(scheme: str, bucket: str, problem: Exception) -> tuple[FileSystem, str]:
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(f"{scheme}://{bucket}/")
    except Exception as error:  # packages raise errors of their own, for instance if a library is missing
        # An OSError of pyarrow: it knows the scheme, but cannot load what it needs.
        reason = without_secrets(str(problem if isinstance(problem, OSError) else error))
        raise AddressError(f"{scheme}:// addresses cannot be used here: {reason}") from error
    return PyFileSystem(FSSpecHandler(filesystem)), str(path)
