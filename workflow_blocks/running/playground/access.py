"""Who may use the playground: this machine's user, or who has the token that `serve` prints.

Web pages of other sites can make a browser send requests to this server. So requests must name this server as
their host (a site may let its own name lead here) and, where the browser says where they come from, come from
the playground's own page.
"""

import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

_FROM_OUR_PAGE = (None, "same-origin", "none")


class RefusedError(Exception):
    """The playground does not answer a request.

    Args:
        status: HTTP status.
        message: why, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Access:
    """`token` is None where only this machine can reach the server."""

    token: str | None

    def check_page(self, request: Request) -> None:
        """Checks a request for the page itself, to which links of other sites may lead.

        Raises:
            RefusedError: it must not be answered; with status 401 if only the token is missing.
        """
        self.check_host(request)
        if self.token is not None and not self.is_token(request.cookies.get(cookie_name(request), "")):
            raise RefusedError(401, "open the address with the token that `workflow-blocks serve` printed")

    def check(self, request: Request) -> None:
        """Checks a request of the page.

        Raises:
            RefusedError: it must not be answered.
        """
        self.check_origin(request)
        self.check_page(request)

    def check_host(self, request: Request) -> None:
        """Without a token, only this machine's own names are answered.

        Raises:
            RefusedError: the request names another host.
        """
        host = request.headers.get("host", "")
        if self.token is None and not _is_loopback_name(_hostname(host)):
            raise RefusedError(403, f"this server does not answer as {host!r}; use http://127.0.0.1")

    def check_origin(self, request: Request) -> None:
        """Checks where a request comes from.

        Raises:
            RefusedError: it comes from the page of another site.
        """
        origin = request.headers.get("origin")
        is_own = origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
        if not is_own or request.headers.get("sec-fetch-site") not in _FROM_OUR_PAGE:
            raise RefusedError(403, "only the playground's own page may send this request")

    def is_token(self, given: str) -> bool:
        """Whether a text is the token."""
        return self.token is not None and secrets.compare_digest(given.encode(), self.token.encode())


def cookie_name(request: Request) -> str:
    """The name of the cookie with the token. All ports of a machine share cookies, so it has the port."""
    try:
        port = urlsplit(f"//{request.headers.get('host', '')}").port
    except ValueError:
        port = None
    return "playground_token" if port is None else f"playground_token_{port}"


def access_for(address: str) -> Access:
    """The access to a server that listens on an IP address; away from loopback with a new token."""
    return Access(None if ip_address(address).is_loopback else secrets.token_urlsafe(24))


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback_name(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
