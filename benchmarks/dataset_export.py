"""What adding an image to a dataset costs, as the dataset grows."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import console
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.formats import FORMATS, DatasetFormatName

WINDOW = 50
MAX_WINDOW = 500
SIDE = 64
BOXES = [(1.5, 2.0, 20.0, 30.25), (5.0, 5.0, 60.0, 50.0), (0.0, 10.5, 9.0, 63.0)]
NAMES = ["person", "car", "dog"]


def measure(dataset_folder: Path, format: DatasetFormatName, n_images: int) -> list[float]:
    """Milliseconds of each image of 64 x 64 with three boxes, added as the block does it."""
    milliseconds = []
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for number in track(range(n_images), format, console=console, transient=True):
        image[0, 0] = number % 256, number // 256 % 256, number // 65536
        start = time.perf_counter()
        with Dataset(dataset_folder, format) as dataset:
            dataset.add(image, BOXES, NAMES, "train")
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return milliseconds


def around(milliseconds: list[float], number: int) -> float:
    """The mean of the images about the one of that number.

    Late in a large COCO dataset, some of them pay for all: its file is written about once in a second.
    """
    window = min(MAX_WINDOW, max(WINDOW, number // 20))
    start = max(0, min(number, len(milliseconds)) - window)
    return statistics.mean(milliseconds[start : start + 2 * window])


def main(
    images: Annotated[int, typer.Option(help="How many images to add to a COCO dataset.")] = 50_000,
    label_images: Annotated[
        int, typer.Option(help="The same for formats with a file for each image.")
    ] = 20_000,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table, and writes and draws dataset_export.json."""
    table = Table("format", "images", "100th, ms", "last, ms", "ratio", title="Adding an image to a dataset")
    measured = {}
    ratios = {}
    for name in FORMATS:
        count = images if name == "coco" else label_images
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as dataset_folder:
            measured[name] = measure(Path(dataset_folder), name, count)
        first, last = around(measured[name], 100), around(measured[name], count)
        ratios[name] = last / first
        table.add_row(name, f"{count:,}", f"{first:.2f}", f"{last:.2f}", f"{ratios[name]:.2f}")
    console.print(table)

    places = range(WINDOW, images, max(images // 200, 2 * WINDOW))
    publish(
        "dataset_export",
        {
            "machine": f"{os.cpu_count()} CPU cores",
            "image": f"{SIDE} x {SIDE}",
            "n_boxes": len(BOXES),
            "n_images": list(places),
            "milliseconds": {
                name: [around(values, place) for place in places if place < len(values)]
                for name, values in measured.items()
            },
            "ratios": ratios,
        },
        folder,
    )


if __name__ == "__main__":
    typer.run(main)
