"""Peak memory and time at the released size, in bfloat16 with random weights.

It needs 4 GB of disk for the weights and some minutes: CPUs without bfloat16 instructions are slow at it.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.measure import console, drawn_image
from benchmarks.packages import OBJECTS_PER_PROMPT, RELEASED, random_package
from benchmarks.workflows import PROMPTS
from workflow_blocks.moondream2.checkpoint import WEIGHTS_FILE

GIB = 2**30


def measure(package: Path) -> dict[str, float]:
    """Loads the package in this process and detects with two prompts on a 640 x 480 image."""
    from workflow_blocks.moondream2.runtime import Query, Runtime

    start = time.perf_counter()
    detector = Runtime.from_folder(package, dtype=torch.bfloat16)
    loaded = time.perf_counter()
    (image,) = detector.encode_images([drawn_image(480, 640)])
    encoded = time.perf_counter()
    found = detector.detect([Query(image, prompt) for prompt in PROMPTS[:2]], OBJECTS_PER_PROMPT)
    assert [len(objects) for objects in found] == [OBJECTS_PER_PROMPT] * 2
    return {
        "load, s": loaded - start,
        "encode, s": encoded - loaded,
        "two prompts, s": time.perf_counter() - encoded,
        "peak memory, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
    }


def main(
    package: Annotated[Path | None, typer.Option(help="Only measure this one, in this process.")] = None,
) -> None:
    """Prints a table."""
    if package is not None:
        print(json.dumps(measure(package)))
        return
    with random_package(RELEASED, torch.bfloat16) as folder:
        weights = (folder / WEIGHTS_FILE).stat().st_size / GIB
        # A process of its own: making the weights takes more memory than running them.
        command = [sys.executable, "-m", "benchmarks.released_size", "--package", str(folder)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    measured = json.loads(output.splitlines()[-1])
    table = Table("", "", title="Released size, bfloat16, random weights, one 640 x 480 image")
    for name, value in {"weights, GiB": weights, **measured}.items():
        table.add_row(name, f"{value:.2f}")
    table.add_row("peak memory beyond the weights, GiB", f"{measured['peak memory, GiB'] - weights:.2f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
