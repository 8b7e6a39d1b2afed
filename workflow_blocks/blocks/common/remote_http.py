"""Requests to another Inference server: timeouts, retries, size limits, and a key that no other host gets."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any

import requests
from pydantic import SecretStr
from pydantic_core import from_json
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from workflow_blocks.blocks.common.client_errors import UnavailableError
from workflow_blocks.blocks.common.masking import Mask

CONNECT_TIMEOUT_S = 10.0
# The waits are 0, 1, 2, 4, 8 and 16 s: a server takes about half a minute to start.
RETRIES = 6
BACKOFF_S = 0.5
MAX_RETRY_AFTER_S = 16.0
TRANSIENT_STATUS = (429, 502, 503, 504)
LOOP_STATUS = 508
MAX_ANSWER_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**16
_SHOWN_ANSWER = 500
_MASKED_ANSWER = 20_000
_NOT_JSON = object()

logger = logging.getLogger(__name__)


class RemoteRefusedError(Exception):
    """The other server rejects the request (HTTP 400, 404, 413 or 422); the message is its reason.

    Args:
        reason: without the API key.
        status: of HTTP.
        answer: the whole JSON answer; it can contain the API key, so it must not be shown.
    """

    def __init__(self, reason: str, status: int, answer: object) -> None:
        super().__init__(reason)
        self.status = status
        self.answer = answer


_mask_of_request: ContextVar[Mask | None] = ContextVar("mask_of_request", default=None)


class _MaskKey(logging.Filter):
    """Masks the API key in what urllib3 logs about a request, which quotes what the server sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        if (mask := _mask_of_request.get()) is not None:
            record.msg, record.args, record.exc_info = mask(record.getMessage()), (), None
        return True


for _name in ("urllib3.connection", "urllib3.connectionpool", "urllib3.util.retry"):
    logging.getLogger(_name).addFilter(_MaskKey())


class _Retry(Retry):
    """Retries transient errors: refused and reset connections, and servers that report that they are busy."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> "_Retry":
        if isinstance(error, ReadTimeoutError):
            raise error  # the server would hang again, for as long
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, MAX_RETRY_AFTER_S)


def _new_adapter() -> HTTPAdapter:
    retry = _Retry(
        total=RETRIES,
        redirect=0,
        status_forcelist=TRANSIENT_STATUS,
        allowed_methods=None,  # detection changes nothing on the server, so a POST may be sent again
        backoff_factor=BACKOFF_S,
        raise_on_status=False,
    )
    return HTTPAdapter(max_retries=retry, pool_maxsize=64)


@dataclass(frozen=True)
class RemoteServer:
    """Another Inference server. Threads may share it, and they share its open connections.

    Args:
        url: address without a trailing slash.
        api_key: sent to this address only, and never in a URL.
        key_transport: where the key is sent: `legacy` (in the body), `header`, or `both`.
        timeout_s: seconds that the server may take to start its answer, and again to finish it.
        name: what error messages call the server; they do not contain the address.
    """

    url: str
    api_key: SecretStr | None
    key_transport: str
    timeout_s: float
    name: str
    # urllib3's connection pools, which are in the adapter, are thread-safe. A `requests.Session` is not.
    _adapter: HTTPAdapter = field(default_factory=_new_adapter, compare=False, repr=False)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Sends `body` as JSON and returns the decoded JSON answer.

        Raises:
            RemoteRefusedError: the server rejects the request.
            UnavailableError: the server cannot be reached, is too slow, or gives an unusable answer.
        """
        headers = {"Accept-Encoding": "identity"}
        if self.api_key is not None:
            if self.key_transport != "header":
                body = body | {"api_key": self.api_key.get_secret_value()}
            if self.key_transport != "legacy":
                headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        # Errors are raised after `except`: those of the library quote what the server sent, with the API key.
        try:
            with (
                self._masked_log(),
                self._new_session().post(
                    self.url + path,
                    json=body,
                    headers=headers,
                    timeout=(CONNECT_TIMEOUT_S, self.timeout_s),
                    allow_redirects=False,
                    stream=True,
                    auth=_keep_headers,
                ) as response,
            ):
                content = self._read(response)
        except (requests.Timeout, ReadTimeoutError):
            problem = self.unavailable(f"did not answer within {self.timeout_s:g} s", 504)
        except (requests.RequestException, HTTPError) as error:
            problem = self.unavailable(
                f"cannot be reached, or closed the connection ({type(error).__name__})"
            )
        else:
            return self._decode(response.status_code, content)
        raise problem

    @cached_property
    def _mask(self) -> Mask | None:
        return None if self.api_key is None else Mask(self.api_key.get_secret_value())

    @contextmanager
    def _masked_log(self) -> Iterator[None]:
        token = _mask_of_request.set(self._mask)
        try:
            yield
        finally:
            _mask_of_request.reset(token)

    def _new_session(self) -> requests.Session:
        """A session of this request's own, which is never closed: that would close the shared connections."""
        session = requests.Session()
        session.mount("http://", self._adapter)
        session.mount("https://", self._adapter)
        return session

    def _read(self, response: requests.Response) -> bytes:
        """Reads the body. The timeout is for all of it, so a server cannot send it byte by byte for ever."""
        deadline = time.monotonic() + self.timeout_s
        content = bytearray()
        while chunk := response.raw.read1(_CHUNK_BYTES):
            content += chunk
            if time.monotonic() > deadline:
                raise self.unavailable(f"did not finish its answer within {self.timeout_s:g} s", 504)
            if len(content) > MAX_ANSWER_BYTES:
                raise self.unavailable(f"sent more than {MAX_ANSWER_BYTES >> 20} MiB")
        expected = response.headers.get("Content-Length", "")
        if expected.isdigit() and len(content) < int(expected):
            raise self.unavailable("sent an incomplete answer")
        return bytes(content)

    def _decode(self, status: int, content: bytes) -> Any:
        if status in (401, 403):
            raise self.unavailable("refuses the API key")
        if status in TRANSIENT_STATUS:
            raise self.unavailable(f"is busy or not ready (HTTP {status}, {RETRIES + 1} times)", 503)
        if 300 <= status < 400:
            raise self.unavailable("redirects to another address, to which the API key is not sent")
        if status == LOOP_STATUS:
            raise self.unavailable(
                "sends its images to another server, too; set MOONDREAM2_API_URL on one server only"
            )
        try:
            answer = from_json(content)  # unlike `json`, it bounds how deep lists are nested
        except ValueError:
            answer = _NOT_JSON
        if answer is _NOT_JSON:
            raise self.unavailable(f"gave an answer (HTTP {status}) that is not JSON")
        if status in (400, 404, 413, 422):
            raise RemoteRefusedError(self._reason(answer), status, answer)
        if status != 200:
            raise self.unavailable(f"failed (HTTP {status})")
        return answer

    def _reason(self, answer: object) -> str:
        """Why the server rejects a request, without the API key, which the server may quote."""
        text = _message(answer)[:_MASKED_ANSWER]
        return (text if self._mask is None else self._mask(text))[:_SHOWN_ANSWER]

    def unavailable(self, what: str, status_code: int = 502) -> UnavailableError:
        """An error of this server, which is also logged. `what` must not contain the API key."""
        logger.warning("The Moondream2 server at %s %s", self.url, what)
        return UnavailableError(f"{self.name} {what}", status_code)


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Stops `requests` from adding credentials of a .netrc file."""
    return request


def _message(answer: object) -> str:
    """The reason in an Inference server's error document."""
    if not isinstance(answer, dict):
        return str(answer)
    text = answer.get("inner_error_message") or answer.get("message") or answer.get("detail") or answer
    return str(text)
