"""Images per second of one and two workers on a Ray cluster, what Ray adds to each image, and memory."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import psutil
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import console, drawn_image, machine, unseen
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.fetch import fetch
from workflow_blocks.cluster.job import Job, run_job, run_parts
from workflow_blocks.cluster.job_folder import JobFolder
from workflow_blocks.cluster.manifest import find_images, read_part
from workflow_blocks.cluster.parts import rows_file
from workflow_blocks.cluster.rows import Result, table_of
from workflow_blocks.cluster.session import ray_session
from workflow_blocks.cluster.store import Store
from workflow_blocks.cluster.worker import Image, WorkflowRunner
from workflow_blocks.image_files import decode_image
from workflow_blocks.running.definitions import read_definition

BATCH_SIZE = 32
PARAMETERS = {"prompts": ["shape"]}


class StubWorker:
    """Stands in for `PartWorker` where only the driver is measured: it writes rows without a workflow."""

    def __init__(self, config: ClusterConfig, store: Store, keeper: Any) -> None:
        self._store = store

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for part in batch["part"]:
            rows = read_part(self._store, int(part)).to_pylist()
            table = table_of([Result(row["id"], row["uri"]) for row in rows])
            self._store.write_table(rows_file(int(part)), table)
        return batch


def write_images(folder: Path, n_images: int) -> None:
    """Drawn images of 640 x 480 pixels; each is new to the cache of encoded images."""
    folder.mkdir(parents=True)
    scenes = [drawn_image(480, 640, seed) for seed in range(50)]
    for number in range(n_images):
        image = unseen(scenes[number % len(scenes)])
        (folder / f"{number:06}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())


def without_ray(source: Path, n_images: int) -> float:
    """Seconds for an image in this process, with one thread: read, decode and detect in batches, no rows."""
    config = ClusterConfig(read_definition("detect_objects"), PARAMETERS, batch_size=BATCH_SIZE)
    runner = WorkflowRunner(config)
    uris = [path.as_uri() for path in sorted(source.iterdir())[:n_images]]
    images = [Image(uri, uri, lambda uri=uri: fetch(uri), decode_image) for uri in uris]  # type: ignore[misc]
    list(runner.results(images[:BATCH_SIZE]))
    start = time.perf_counter()
    n_results = len(list(runner.results(images)))
    return (time.perf_counter() - start) / n_results


def with_workers(source: Path, output: Path, n_workers: int) -> dict[str, float]:
    """A job's figures from the first file of rows to the last, so without the start of the workers."""
    job = Job(
        definition=read_definition("detect_objects"),
        source=str(source),
        output=str(output),
        parameters=PARAMETERS,
        workers=(n_workers, n_workers),
        batch_size=BATCH_SIZE,
    )
    with _peak_of_workers() as peak:
        run_job(job, Console(stderr=True))
    files = sorted((output / "rows").glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    # Each worker's first file counts as start-up.
    first, rest = files[n_workers - 1].stat().st_mtime, files[n_workers:]
    seconds = rest[-1].stat().st_mtime - first
    n_images = sum(pq.read_metadata(path).num_rows for path in rest)
    rows = pyarrow.dataset.dataset(output / "rows", format="parquet").to_table()
    in_worker = sum(rows["seconds"].to_pylist()) / rows.num_rows
    return {
        "images": n_images,
        "images_per_second": n_images / seconds,
        "seconds_for_an_image": seconds * n_workers / n_images,
        "seconds_in_the_worker": in_worker,
        # The share that is not decoding and the workflow: reading, Ray, writing rows.
        "overhead": seconds * n_workers / n_images / in_worker - 1,
        "worker_mib": peak.mib,
    }


@dataclass
class _Peak:
    mib: float = 0.0


@contextmanager
def _peak_of_workers() -> Iterator[_Peak]:
    """The most memory that one worker process has at any time."""
    peak, ended = _Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(1):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "PartWorker" in " ".join(process.cmdline()):
                        peak.mib = max(peak.mib, process.memory_info().rss / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def driver_memory(n_rows: int) -> float:
    """The most memory of a driver with a manifest of that many rows and stub workers, in MiB."""
    program = f"from benchmarks.cluster import print_driver_memory; print_driver_memory({n_rows})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def print_driver_memory(n_rows: int) -> None:
    """Runs in a process of its own: it prints that process's peak of memory in MiB."""
    folder = Path(tempfile.mkdtemp(prefix="wb-bench-", dir="/tmp"))
    try:
        with pq.ParquetWriter(folder / "images.parquet", pa.schema([("uri", pa.string())])) as file:
            for first in range(0, n_rows, 10_000):
                uris = [f"s3://bucket/folder/{number:09}.jpg" for number in range(first, first + 10_000)]
                file.write_table(pa.table({"uri": uris}))
        job_folder = JobFolder(Store(str(folder / "out")))
        definition = read_definition("detect_objects")
        with ray_session(None):
            source = str(folder / "images.parquet")
            config = ClusterConfig(definition, concurrency=1)
            manifest = job_folder.start(definition, {}, source, find_images(source), 1, BATCH_SIZE)
            run_parts(config, job_folder, manifest, Console(quiet=True), worker=StubWorker)
        # Not `ru_maxrss`, which a process inherits from the one that started it.
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        print(int(peak) / 2**10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(
    images: Annotated[int, typer.Option(help="How many images each job has.")] = 1000,
    memory: Annotated[bool, typer.Option(help="Whether the driver's memory is measured.")] = True,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints tables, and writes cluster.json. It takes about ten minutes on two cores."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    work = Path(tempfile.mkdtemp(prefix="wb-bench-", dir="/tmp"))
    results: dict[str, Any] = {"machine": machine(), "images": images, "batch_size": BATCH_SIZE}
    try:
        write_images(work / "in", images)
        for n_workers in (1, 2):
            results[f"workers_{n_workers}"] = with_workers(work / "in", work / f"out{n_workers}", n_workers)
        results["seconds_without_ray"] = without_ray(work / "in", min(images, 320))
        if memory:
            results["driver_mib"] = {str(n): driver_memory(n) for n in (10_000, 50_000, 200_000)}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    one, two = results["workers_1"], results["workers_2"]
    results["speedup_of_two"] = two["images_per_second"] / one["images_per_second"]
    table = Table(
        "", "images/s", "seconds for an image", "overhead", title=f"{images} images of 640 x 480, one prompt"
    )
    for name, figures in (("1 worker", one), ("2 workers", two)):
        row = (f"{figures['images_per_second']:.2f}", f"{figures['seconds_for_an_image']:.3f}")
        table.add_row(name, *row, f"{figures['overhead']:.1%}")
    table.add_row("without Ray", "", f"{results['seconds_without_ray']:.3f}", "")
    table.caption = results["machine"]
    console.print(table)
    print(json.dumps(results, indent=1))
    publish("cluster", results, folder)


if __name__ == "__main__":
    typer.run(main)
