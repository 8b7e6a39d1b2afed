"""Connections to another server, as threads share them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.loopback import serving
from workflow_blocks.blocks.common.remote_http import RemoteServer


class Handler(BaseHTTPRequestHandler):
    """Answers with the request's body, and sets a cookie."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.connections.add(self.client_address)
        self.server.cookies.add(self.headers.get("Cookie"))
        self.server.together.wait(timeout=60)
        self.send_response(200)
        self.send_header("Set-Cookie", "session=of-another-request")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def start():
    """Starts a server that holds requests back until so many have come."""
    with ExitStack() as servers:

        def start(n_together):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.connections, server.cookies = set(), set()
            server.together = threading.Barrier(n_together)
            address = servers.enter_context(serving(server))
            return server, RemoteServer(address, None, "header", 60, "the server")

        yield start


def test_connections_are_reused_by_other_threads(start):
    server, remote = start(n_together=1)

    for number in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(remote.post, "/", {"number": number}).result() == {"number": number}

    assert len(server.connections) == 1


def test_threads_get_their_own_answers_and_share_no_cookies(start):
    n_threads = 8
    server, remote = start(n_together=n_threads)
    numbers = list(range(5 * n_threads))

    with ThreadPoolExecutor(n_threads) as threads:
        answers = list(threads.map(lambda number: remote.post("/", {"number": number}), numbers))

    assert answers == [{"number": number} for number in numbers]
    assert len(server.connections) == n_threads
    assert server.cookies == {None}
