"""Timing side by side, the machine's limits, and how results are shown."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from training.scenes import draw_scene
from workflow_blocks.moondream2.image_crops import UInt8Array

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

PICTURES = Path("docs/benchmarks")
console = Console(width=110)


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


def show(table: Table) -> None:
    """Prints a table with what the machine is."""
    where = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{torch.get_num_threads()} CPU threads"
    )
    table.caption = f"{where}, torch {torch.__version__}"
    console.print(table)


def draw(name: str, titles: list[str], fill: Callable[[int, Axes], None]) -> None:
    """Draws one plot for each title, filled by `fill(index, axes)`, into docs/benchmarks/<name>.png."""
    figure, axes = pyplot.subplots(1, len(titles), figsize=(4.6 * len(titles), 3.8), squeeze=False)
    for index, (title, axis) in enumerate(zip(titles, axes[0], strict=True)):
        fill(index, axis)
        axis.set_title(title)
    figure.tight_layout()
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / f"{name}.png", dpi=80)
    pyplot.close(figure)
    console.print(f"Drew {PICTURES / name}.png")
