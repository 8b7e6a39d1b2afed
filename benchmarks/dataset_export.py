"""What adding an image to a dataset costs, as the dataset grows."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.axes import Axes
from rich.progress import track
from rich.table import Table

from benchmarks.measure import console, draw
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.formats import FORMATS, DatasetFormatName

WINDOW = 50
BOXES = [(1.5, 2.0, 20.0, 30.25), (5.0, 5.0, 60.0, 50.0), (0.0, 10.5, 9.0, 63.0)]
NAMES = ["person", "car", "dog"]


def measure(folder: Path, format: DatasetFormatName, n_images: int) -> list[float]:
    """Milliseconds of each image of 64 x 64 with three boxes, added as the block does it."""
    milliseconds = []
    image = np.zeros((64, 64, 3), np.uint8)
    for number in track(range(n_images), format, console=console, transient=True):
        image[0, 0] = number % 256, number // 256 % 256, number // 65536
        start = time.perf_counter()
        with Dataset(folder, format) as dataset:
            dataset.add(image, BOXES, NAMES, "train")
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return milliseconds


def around(milliseconds: list[float], number: int) -> float:
    """The median of the images about the one of that number."""
    start = max(0, min(number, len(milliseconds)) - WINDOW)
    return statistics.median(milliseconds[start : start + 2 * WINDOW])


def main(images: Annotated[int, typer.Option(help="How many images to add.")] = 50_000) -> None:
    """Prints a table and draws docs/benchmarks/dataset_export.png."""
    table = Table("format", "100th, ms", f"{images:,}th, ms", "ratio", title="Adding an image to a dataset")
    results = {}
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(Path(folder), name, images)
        first, last = around(results[name], 100), around(results[name], images)
        table.add_row(name, f"{first:.2f}", f"{last:.2f}", f"{last / first:.2f}")
    console.print(table)

    def fill(_: int, axis: Axes) -> None:
        places = range(WINDOW, images, max(images // 200, 2 * WINDOW))
        for name, milliseconds in results.items():
            axis.plot(places, [around(milliseconds, place) for place in places], label=name)
        axis.set(xlabel="images in the dataset", ylabel="milliseconds for one more", ylim=(0, None))
        axis.legend()

    draw("dataset_export", ["cost of one more image"], fill)


if __name__ == "__main__":
    typer.run(main)
