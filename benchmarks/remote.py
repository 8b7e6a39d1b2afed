"""Detection on another server 50 ms away, and what a server's HTTP adds."""

import asyncio
import base64
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlparse

import cv2
import requests
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show, side_by_side, unseen
from benchmarks.workflows import PROMPTS, core_blocks, our_block, without_image_cache
from tests.real_server import RealServer, running_server
from workflow_blocks.inference_host.engine import make_model_manager
from workflow_blocks.moondream2.image_crops import UInt8Array

N_IMAGES, N_PROMPTS = 8, 4
HEIGHT, WIDTH = 480, 640
ROUND_TRIP_S = 0.05
N_CLIENTS, N_REQUESTS = 8, 120


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Hands every piece on after the same delay, so that pieces do not wait for one another."""
    loop = asyncio.get_running_loop()
    while piece := await reader.read(2**18):
        loop.call_later(delay_s, writer.write, piece)
    loop.call_later(delay_s, writer.close)


@contextmanager
def delayed(address: str, round_trip_s: float) -> Iterator[str]:
    """A proxy on loopback to `address`, to which each way takes half of `round_trip_s`; gives its address."""
    target = urlparse(address)
    loop = asyncio.new_event_loop()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(round_trip_s)  # the handshake, which loopback made at once
        far_reader, far_writer = await asyncio.open_connection(target.hostname, target.port)
        ways = (_carry(reader, far_writer, round_trip_s / 2), _carry(far_reader, writer, round_trip_s / 2))
        await asyncio.gather(*ways, return_exceptions=True)

    server = loop.run_until_complete(asyncio.start_server(connect, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def remote_runs(
    address: str, images: list[UInt8Array], max_concurrent_steps: int
) -> dict[str, Callable[[], object]]:
    """The same work on new images on a server, by our block and by core blocks."""
    from inference.core.workflows.core_steps.common.entities import StepExecutionMode
    from roboflow_workflows.core_steps.models.foundation.moondream2 import v1 as core

    from workflow_blocks.bundled_model import demo_model_folder

    # What Inference takes from the environment when it is imported.
    core.WORKFLOWS_REMOTE_API_TARGET, core.LOCAL_INFERENCE_API_URL = "self-hosted", address
    os.environ["MOONDREAM2_API_URL"] = address
    options: dict[str, Any] = {
        "init_parameters": {"workflows_core.step_execution_mode": StepExecutionMode.REMOTE},
        "max_concurrent_steps": max_concurrent_steps,
    }
    manager, package, prompts = make_model_manager(), str(demo_model_folder()), PROMPTS[:N_PROMPTS]
    ours = our_block(manager, package, prompts, **options)
    core_steps = core_blocks(manager, package, prompts, **options)

    def new_images() -> list[UInt8Array]:
        return [unseen(image) for image in images]

    return {"our block": lambda: ours(new_images()), "core blocks": lambda: core_steps(new_images())}


def measure_remote(server: RealServer, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds by how many steps the engine runs at once, and by block."""
    images = [drawn_image(HEIGHT, WIDTH, seed) for seed in range(N_IMAGES)]
    seconds = {}
    with delayed(server.address, ROUND_TRIP_S) as address:
        for n_steps in (1, 8):
            runs = remote_runs(address, images, n_steps)
            for run in runs.values():
                run()
            seconds[f"{n_steps} at once"] = side_by_side(runs, rounds)
    return seconds


def measure_http(server: RealServer) -> dict[str, float]:
    """Milliseconds of one client's request and of the same work in this process, and requests a second."""
    image, prompts = drawn_image(HEIGHT, WIDTH), PROMPTS[:N_PROMPTS]
    data = base64.b64encode(cv2.imencode(".jpg", image)[1].tobytes()).decode()
    inputs: dict[str, Any] = {"image": {"type": "base64", "value": data}, "prompts": prompts}
    address = f"{server.address}/local/workflows/detect_and_visualize"

    def ask(_: object = None) -> None:
        requests.post(address, json={"inputs": inputs}, timeout=60).raise_for_status()

    from workflow_blocks.inference_host.engine import make_engine
    from workflow_blocks.running.definitions import read_definition

    engine = make_engine(read_definition("detect_and_visualize"), make_model_manager())

    def run_here() -> None:
        engine.run(runtime_parameters=dict(inputs), serialize_results=True)

    for _ in range(5):
        ask()
        run_here()
    alone = side_by_side({"through HTTP": ask, "in this process": run_here}, rounds=40)
    start = time.perf_counter()
    with ThreadPoolExecutor(N_CLIENTS) as clients:
        list(clients.map(ask, range(N_REQUESTS)))
    return {name: value * 1e3 for name, value in alone.items()} | {
        "requests a second": N_REQUESTS / (time.perf_counter() - start)
    }


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 10,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints two tables, and writes and draws remote.json."""
    # Inference, imported later, refuses remote execution when it is offline; nothing here leaves the machine.
    os.environ |= {"OFFLINE_MODE": "False", "TELEMETRY_OPT_OUT": "True"}
    with tempfile.TemporaryDirectory() as work:
        with running_server(Path(work), OFFLINE_MODE="True") as server:
            seconds = measure_remote(server, rounds)
        del os.environ["MOONDREAM2_API_URL"]
        # The same image comes again and again: without the cache it is encoded anew.
        with without_image_cache(), running_server(Path(work), OFFLINE_MODE="True") as server:
            http = measure_http(server)
    table = Table(
        "steps",
        "our block, s",
        "core blocks, s",
        "ratio",
        title=f"{N_IMAGES} images x {N_PROMPTS} prompts, round trip {ROUND_TRIP_S * 1e3:.0f} ms",
    )
    for name, measured in seconds.items():
        ours, core = measured["our block"], measured["core blocks"]
        table.add_row(name, f"{ours:.2f}", f"{core:.2f}", f"{core / ours:.1f}")
    show(table)
    table = Table("", "measured", title=f"detect_and_visualize, {N_PROMPTS} prompts, {WIDTH} x {HEIGHT}")
    table.add_row("one client through HTTP", f"{http['through HTTP']:.1f} ms")
    table.add_row("the same in one process", f"{http['in this process']:.1f} ms")
    table.add_row("added by HTTP", f"{http['through HTTP'] - http['in this process']:.1f} ms")
    table.add_row(f"{N_CLIENTS} clients", f"{http['requests a second']:.1f} requests a second")
    show(table)

    results = {
        "machine": machine(),
        "image": f"{WIDTH} x {HEIGHT}",
        "n_images": N_IMAGES,
        "n_prompts": N_PROMPTS,
        "round_trip_ms": ROUND_TRIP_S * 1e3,
        "seconds": seconds,
    }
    publish("remote", results, folder)


if __name__ == "__main__":
    typer.run(main)
