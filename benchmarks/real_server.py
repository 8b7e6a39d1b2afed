"""The real server, as `workflow-blocks serve` starts it, for tests and benchmarks."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# What Inference, once imported, has its child processes do; a server of its own decides for itself.
INHERITED = {
    "_ROBOFLOW_INFERENCE_OFFLINE_MODE_AT_PROCESS_START",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_MODULES_CACHE",
    "INFERENCE_HOME",
    "TRANSFORMERS_OFFLINE",
    "YOLO_OFFLINE",
}
READY = re.compile(r"Ready: (http://\S+)")


@dataclass(frozen=True)
class RealServer:
    """A server that runs: where it listens, and its process."""

    address: str
    process_id: int


@contextmanager
def running_server(folder: Path, *options: str, **settings: str) -> Iterator[RealServer]:
    """Starts a server in `folder` on a free port; stops it at the end, as Ctrl-C does.

    Args:
        folder: its working directory, for its models and its log.
        options: of `workflow-blocks serve`.
        settings: environment variables beside those of this process.

    Raises:
        RuntimeError: it does not start, or does not end well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    command = [
        sys.executable,
        "-m",
        "workflow_blocks",
        "serve",
        "--port",
        "0",
        "--model-cache",
        "cache",
    ]
    environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": "1"} | settings
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *options], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield RealServer(_address(process, log), process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(timeout=30)
        finally:
            process.kill()
    if status != 0:
        raise RuntimeError(f"the server ended with {status}:\n{log.read_text()[-2000:]}")


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(2400):
        if match := READY.search(log.read_text()):
            return match[1]
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")
