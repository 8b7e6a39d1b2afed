"""Requests to another Inference server: time-outs, retries, limits, and a key that goes nowhere else."""

import json
import logging
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import requests
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError

from workflow_blocks.blocks.common.client_errors import UnavailableError

CONNECT_TIMEOUT_S = 10.0
# Waits of 0, 1, 2, 4, 8 and 16 s: a server that starts takes about half a minute.
RETRIES = 6
BACKOFF_S = 0.5
MAX_RETRY_AFTER_S = 16.0
PASSING_STATUS = (429, 502, 503, 504)
MAX_ANSWER_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**16
_SHOWN_ANSWER = 500

logger = logging.getLogger(__name__)


class RemoteRefusedError(Exception):
    """The other server finds fault with the request (HTTP 400, 404, 413 or 422), for the reason it gives."""


class _Retry(Retry):
    """Tries again what can pass: a refused or reset connection, and a server that says it is busy."""

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
            raise error  # it would hang again, for as long
        return super().increment(method, url, response, error, _pool, _stacktrace)

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, MAX_RETRY_AFTER_S)


def _new_session() -> requests.Session:
    retry = _Retry(
        total=RETRIES,
        redirect=0,
        status_forcelist=PASSING_STATUS,
        allowed_methods=None,  # detection changes nothing, so a POST may be sent again
        backoff_factor=BACKOFF_S,
        raise_on_status=False,
    )
    session = requests.Session()
    adapter = HTTPAdapter(max_retries=retry, pool_maxsize=64)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


@dataclass(frozen=True)
class RemoteServer:
    """An Inference server.

    Args:
        url: its address, without a path's last slash.
        api_key: sent to this address alone, never in a URL.
        key_transport: where the key goes: `legacy` (the body), `header`, or `both`.
        timeout_s: how long it may take to begin to answer, and again to finish.
        name: how errors call it; the address itself is no business of clients.
    """

    url: str
    api_key: SecretStr | None
    key_transport: str
    timeout_s: float
    name: str
    _session: requests.Session = field(default_factory=_new_session, compare=False, repr=False)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server answers, decoded from JSON.

        Raises:
            RemoteRefusedError: it finds fault with the request.
            UnavailableError: it cannot be reached, is too slow, or gives no good answer.
        """
        headers = {"Accept-Encoding": "identity"}
        if self.api_key is not None:
            if self.key_transport != "header":
                body = body | {"api_key": self.api_key.get_secret_value()}
            if self.key_transport != "legacy":
                headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        try:
            with self._session.post(
                self.url + path,
                json=body,
                headers=headers,
                timeout=(CONNECT_TIMEOUT_S, self.timeout_s),
                allow_redirects=False,
                stream=True,
                auth=_keep_headers,
            ) as response:
                content = self._read(response)
        except (requests.Timeout, ReadTimeoutError) as error:
            raise self._error(f"did not answer within {self.timeout_s:g} s", 504) from error
        except (requests.RequestException, HTTPError) as error:
            raise self._error(f"cannot be reached or broke off ({type(error).__name__})") from error
        return self._decode(response.status_code, content)

    def _read(self, response: requests.Response) -> bytes:
        """The answer's body; a server that trickles is as bad as one that hangs."""
        deadline = time.monotonic() + self.timeout_s
        content = bytearray()
        while chunk := response.raw.read1(_CHUNK_BYTES):
            content += chunk
            if time.monotonic() > deadline:
                raise self._error(f"did not finish its answer within {self.timeout_s:g} s", 504)
            if len(content) > MAX_ANSWER_BYTES:
                raise self._error(f"sent more than {MAX_ANSWER_BYTES >> 20} MiB")
        expected = response.headers.get("Content-Length", "")
        if expected.isdigit() and len(content) < int(expected):
            raise self._error("broke off its answer")
        return bytes(content)

    def _decode(self, status: int, content: bytes) -> Any:
        if status in (401, 403):
            raise self._error("refuses the API key")
        if status in PASSING_STATUS:
            raise self._error(f"is busy or not up (HTTP {status}, {RETRIES + 1} times)", 503)
        if 300 <= status < 400:
            raise self._error("redirects to another address, where the API key does not go")
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise self._error(f"gave an answer (HTTP {status}) that is not JSON") from error
        if status in (400, 404, 413, 422):
            raise RemoteRefusedError(_message(answer))
        if status != 200:
            raise self._error(f"failed (HTTP {status})")
        return answer

    def _error(self, what: str, status_code: int = 502) -> UnavailableError:
        logger.warning("The Moondream2 server at %s %s", self.url, what)
        return UnavailableError(f"{self.name} {what}", status_code)


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Instead of what `requests` would take from a .netrc file."""
    return request


def _message(answer: object) -> str:
    """What is wrong with a request, in the words of Inference's error documents."""
    if not isinstance(answer, dict):
        return str(answer)[:_SHOWN_ANSWER]
    text = answer.get("inner_error_message") or answer.get("message") or answer.get("detail") or answer
    return str(text)[:_SHOWN_ANSWER]
