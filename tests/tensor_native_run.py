"""Runs tests in the engine's tensor-native mode, which Inference reads when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TESTS = (HERE / "workflows" / "tensor_native.py", HERE / "workflows" / "test_definitions.py")


class TensorNativeRun:
    """A pytest in a process of its own. It starts at once."""

    def __init__(self, folder: Path) -> None:
        """Starts it; its output and its temporary files go to `folder`."""
        self._output = folder / "output.txt"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        environment = os.environ | {"ENABLE_TENSOR_DATA_REPRESENTATION": "True"}
        environment.pop("PYTEST_XDIST_WORKER", None)
        with self._output.open("w") as file:
            self._process = subprocess.Popen(
                [*command, "--basetemp", folder / "tmp", *TESTS],
                cwd=HERE.parent,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def finish(self) -> tuple[int, str]:
        """Waits until it ends; gives its exit status and its output."""
        return self._process.wait(), self._output.read_text()

    def interrupt(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.wait()
