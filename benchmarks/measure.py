"""Timing side by side, the machine's limits, and how results are shown."""

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from training.scenes import draw_scene
from workflow_blocks.moondream2.image_crops import UInt8Array
from workflow_blocks.moondream2.int8 import int8_problem
from workflow_blocks.moondream2.layers import has_bfloat16_instructions

console = Console(width=110)
_NOISE = np.random.default_rng(0)


def cpu_dtypes() -> list[str]:
    """The dtypes in which this machine's CPU runs the model."""
    return ["float32", "bfloat16", *(["int8"] if int8_problem() is None else [])]


def side_by_side(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each.

    The runs take turns, so that what else the machine does meets all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=rounds * len(runs))
        for _ in range(rounds):
            for name, run in runs.items():
                progress.update(task, description=name)
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
                progress.advance(task)
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def matrix_product_rate(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations a second of a large square matrix product, the best of ten."""
    left, right = torch.rand(2, size, size, device=device, dtype=dtype)
    return 2 * size**3 / _best(lambda: left @ right)


def memory_bandwidth(device: str, n_bytes: int = 2**29) -> float:
    """Bytes a second that a sum over more than any cache reads, the best of ten."""
    values = torch.ones(n_bytes // 4, device=device)
    return n_bytes / _best(values.sum)


def finish_queued_work() -> None:
    """Waits for what a GPU has still to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _best(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        run()
        finish_queued_work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def drawn_image(height: int, width: int, seed: int = 0) -> UInt8Array:
    """A scene of coloured shapes, uint8 BGR (H, W, 3)."""
    scene = cv2.resize(draw_scene(seed).image, (width, height))
    return np.asarray(cv2.cvtColor(scene, cv2.COLOR_RGB2BGR), np.uint8)


def unseen(image: UInt8Array) -> UInt8Array:
    """The image with other noise in a corner each time, so that no cache has it."""
    changed = image.copy()
    changed[:8, :8] = _NOISE.integers(256, size=(8, 8, 3))
    return changed


def machine(*, large: bool = False) -> str:
    """What the bundled model runs on, or it and a large model, with their dtypes."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, bfloat16"
    dtypes = "float32, quarter width in bfloat16" if large and has_bfloat16_instructions() else "float32"
    return f"{torch.get_num_threads()} CPU cores, {dtypes}"


def show(table: Table) -> None:
    """Prints a table with what the machine is."""
    table.caption = f"{machine(large=True)}, torch {torch.__version__}"
    console.print(table)
