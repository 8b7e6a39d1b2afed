"""Repeats reads and writes that fail because storage is away for some seconds."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

SECONDS = 60.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 8.0
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# Of S3 and the like, which pyarrow raises as a plain OSError.
_LASTING_REASON = re.compile(
    r"ACCESS_DENIED|NO_SUCH_(BUCKET|KEY)|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH"
    r"|InvalidAccessKeyId|SignatureDoesNotMatch|HTTP status 40[0134]\b|No space left",
    re.IGNORECASE,
)


def is_lasting(error: OSError) -> bool:
    """Whether the same call would fail again."""
    return isinstance(error, _LASTING) or _LASTING_REASON.search(str(error)) is not None


def retrying(action: Callable[[], Result], seconds: float = SECONDS) -> Result:
    """Calls `action` until it succeeds, with growing waits.

    Raises:
        OSError: it failed for a lasting reason, or for `seconds`.
    """
    end, wait = time.monotonic() + seconds, _FIRST_WAIT
    while True:
        try:
            return action()
        except OSError as error:
            if is_lasting(error) or time.monotonic() + wait > end:
                raise
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
