"""The real server, as `workflow-blocks serve` starts it, for tests and benchmarks."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

# Inference, once imported, sets these for its child processes; a server decides for itself.
INHERITED = {
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_MODULES_CACHE",
    "INFERENCE_HOME",
    "_ROBOFLOW_INFERENCE_OFFLINE_MODE_AT_PROCESS_START",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "YOLO_OFFLINE",
}
READY = re.compile(r"Ready: (http://\S+)")
START_TIMEOUT_S = 600  # alone it takes half a minute
STOP_TIMEOUT_S = 120


class RealServer:
    """A server in a process of its own. It starts at once, and `address` waits until it listens."""

    def __init__(self, folder: Path, *options: str, **settings: str) -> None:
        """Starts it.

        Args:
            folder: its working directory, for its models and its log.
            options: of `workflow-blocks serve`.
            settings: environment variables beside those of this process.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "server.log"
        command = [sys.executable, "-m", "workflow_blocks", "serve", "--model-cache", "cache"]
        environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"} | settings
        with self._log.open("w") as file:
            self._process = subprocess.Popen(
                [*command, *options], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def process_id(self) -> int:
        return self._process.pid

    @cached_property
    def address(self) -> str:
        """Where it listens, such as `http://127.0.0.1:9001`.

        Raises:
            RuntimeError: it does not start.
        """
        for _ in range(10 * START_TIMEOUT_S):
            if match := READY.search(self._log.read_text()):
                return match[1]
            try:
                self._process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            break
        raise RuntimeError(f"the server did not start:\n{self._log.read_text()}")

    def interrupt(self) -> None:
        """Tells it to stop, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def wait(self) -> None:
        """Waits until it has stopped.

        Raises:
            RuntimeError: it does not end well.
        """
        try:
            status = self._process.wait(timeout=STOP_TIMEOUT_S)
        finally:
            self._process.kill()
        if status != 0:
            raise RuntimeError(f"the server ended with {status}:\n{self._log.read_text()[-2000:]}")


@contextmanager
def running_server(folder: Path, *options: str, **settings: str) -> Iterator[RealServer]:
    """A server on a free port that listens now and is stopped at the end: see `RealServer`."""
    server = RealServer(folder, *("--port", "0"), *options, **settings)
    try:
        assert server.address
        yield server
    finally:
        server.interrupt()
        server.wait()
