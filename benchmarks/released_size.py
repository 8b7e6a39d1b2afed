"""Peak memory and time at the released size, by dtype, with random weights.

It needs 4 GB of disk for the weights and some minutes: CPUs without bfloat16 instructions are slow at it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import console, cpu_dtypes, drawn_image
from benchmarks.packages import OBJECTS_PER_PROMPT, RELEASED, random_package
from benchmarks.workflows import PROMPTS

GIB = 2**30


def measure(package: Path, dtype: str) -> dict[str, float]:
    """Loads the package in this process and detects with two prompts on a 640 x 480 image."""
    from workflow_blocks.moondream2.config import Moondream2Config
    from workflow_blocks.moondream2.runtime import Query, Runtime
    from workflow_blocks.moondream2.weight_memory import weight_bytes

    start = time.perf_counter()
    detector = Runtime.from_folder(package, dtype=getattr(torch, dtype))
    loaded, memory_of_loading = time.perf_counter(), _peak_memory()
    _forget_peak_memory()
    (image,) = detector.encode_images([drawn_image(480, 640)])
    encoded = time.perf_counter()
    found = detector.detect([Query(image, prompt) for prompt in PROMPTS[:2]], OBJECTS_PER_PROMPT)
    assert [len(objects) for objects in found] == [OBJECTS_PER_PROMPT] * 2
    return {
        "weights, GiB": weight_bytes(Moondream2Config(), getattr(torch, dtype)) / GIB,
        "load, s": loaded - start,
        "encode, s": encoded - loaded,
        "two prompts, s": time.perf_counter() - encoded,
        "peak memory while loading, GiB": memory_of_loading,
        "peak memory while running, GiB": _peak_memory(),
    }


def _peak_memory() -> float:
    """GiB of this process, at most, since the last `_forget_peak_memory`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / GIB


def _forget_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # Linux's name for that


def main(
    dtypes: Annotated[list[str] | None, typer.Option("--dtype", help="Which; all if left out.")] = None,
    package: Annotated[Path | None, typer.Option(help="Only measure this one, in this process.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints a table, and writes released_size.json."""
    if package is not None:
        (dtype,) = dtypes or ["bfloat16"]
        print(json.dumps(measure(package, dtype)))
        return
    measured = {}
    with random_package(RELEASED, torch.bfloat16) as made:
        for dtype in dtypes or cpu_dtypes():
            # A process of its own: making the weights takes more memory than running them.
            command = [
                sys.executable,
                "-m",
                "benchmarks.released_size",
                "--package",
                str(made),
                "--dtype",
                dtype,
            ]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            measured[dtype] = json.loads(output.splitlines()[-1])
    table = Table("", *measured, title="Released size, random weights, one 640 x 480 image")
    for name in next(iter(measured.values())):
        table.add_row(name, *(f"{of_dtype[name]:.2f}" for of_dtype in measured.values()))
    console.print(table)
    publish("released_size", {"machine": f"{torch.get_num_threads()} CPU cores", "dtypes": measured}, folder)


if __name__ == "__main__":
    typer.run(main)
