"""Threads that call one model at the same time: joined, and one after another by a lock."""

import base64
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import cv2
import requests
import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, finish_queued_work, machine, show, side_by_side, unseen
from benchmarks.packages import DEVICE, LARGE, LARGE_NAME, OBJECTS_PER_PROMPT, random_package
from benchmarks.workflows import PROMPTS
from tests.real_server import RealServer, running_server
from workflow_blocks.bundled_model import DEMO_MODEL, demo_model_folder
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.image_crops import UInt8Array
from workflow_blocks.moondream2.runtime import Query, Runtime
from workflow_blocks.moondream2.settings import load_settings

N_THREADS = 16
JOINED, LOCKED = "joined", "a lock"
SERVER_SETTINGS = {
    "joined": {"MOONDREAM2_IMAGE_CACHE_MB": "0"},
    "not joined": {"MOONDREAM2_IMAGE_CACHE_MB": "0", "MOONDREAM2_JOIN_REQUESTS": "False"},
}
Detect = Callable[[UInt8Array, str], object]


def doors(package: Path) -> dict[str, Detect]:
    """Ways to one model: what a thread calls with an image and a prompt. Neither caches images."""
    device = torch.device(DEVICE)
    dtype = load_settings().dtype_of(Moondream2Config.from_file(package / CONFIG_FILE), device)
    runtimes = {
        name: Runtime.from_folder(package, device, dtype, join_calls=name == JOINED)
        for name in (JOINED, LOCKED)
    }
    lock = Lock()

    def detect(runtime: Runtime, image: UInt8Array, prompt: str) -> object:
        found = runtime.detect([Query(runtime.encode_images([image])[0], prompt)], OBJECTS_PER_PROMPT)
        finish_queued_work()
        return found

    def one_after_another(image: UInt8Array, prompt: str) -> object:
        with lock:
            return detect(runtimes[LOCKED], image, prompt)

    return {JOINED: lambda image, prompt: detect(runtimes[JOINED], image, prompt), LOCKED: one_after_another}


def all_at_once(detect: Detect, images: Sequence[UInt8Array], prompts: Sequence[str]) -> None:
    """A thread for each image and its prompt."""
    with ThreadPoolExecutor(len(images)) as pool:
        list(pool.map(detect, images, prompts))


def measure(package: Path, rounds: int, side: int, n_threads: int) -> dict[str, dict[str, float]]:
    """Seconds of each case by each door."""
    images = [drawn_image(side, side, seed) for seed in range(n_threads)]
    prompts = (PROMPTS * n_threads)[:n_threads]
    ways = doors(package)

    def runs(count: int, is_same_image: bool) -> dict[str, Callable[[], object]]:
        def run(detect: Detect) -> None:
            new = [unseen(images[0])] * count if is_same_image else [unseen(i) for i in images[:count]]
            all_at_once(detect, new, prompts[:count])

        return {name: partial(run, detect) for name, detect in ways.items()}

    cases = {
        "one caller": (1, False),
        f"{n_threads} threads, an image each": (n_threads, False),
        f"{n_threads} threads, a prompt each on one image": (n_threads, True),
    }
    measured = {}
    for name, (count, is_same_image) in cases.items():
        side_by_side(runs(count, is_same_image), 1)  # does not count
        measured[name] = side_by_side(runs(count, is_same_image), rounds)
    return measured


def measure_server(rounds: int, n_clients: int) -> dict[str, float]:
    """Seconds for an image of each client at once, sent to servers with the bundled model."""
    images = [drawn_image(480, 480, seed) for seed in range(n_clients)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        servers = {
            name: stack.enter_context(running_server(folder / name.replace(" ", "_"), **settings))
            for name, settings in SERVER_SETTINGS.items()
        }

        def send(server: RealServer) -> None:
            url, bodies = f"{server.address}/workflows/run", [_body(unseen(image)) for image in images]
            with ThreadPoolExecutor(n_clients) as pool:
                answers = pool.map(lambda body: requests.post(url, json=body, timeout=120), bodies)
                for answer in answers:
                    answer.raise_for_status()

        runs: dict[str, Callable[[], object]] = {
            name: partial(send, server) for name, server in servers.items()
        }
        side_by_side(runs, 1)  # loads the model
        return side_by_side(runs, rounds)


def _body(image: UInt8Array) -> dict[str, Any]:
    content = cv2.imencode(".png", image)[1].tobytes()
    step = {
        "type": "workflow_blocks/moondream2_prompt_detection@v1",
        "name": "detection",
        "images": "$inputs.image",
        "prompts": PROMPTS[:1],
        "model_version": DEMO_MODEL,
    }
    return {
        "specification": {
            "version": "1.0",
            "inputs": [{"type": "WorkflowImage", "name": "image"}],
            "steps": [step],
            "outputs": [{"type": "JsonField", "name": "counts", "selector": "$steps.detection.counts"}],
        },
        "inputs": {"image": {"type": "base64", "value": base64.b64encode(content).decode()}},
    }


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    n_threads: Annotated[int, typer.Option(help="Callers at the same time.")] = N_THREADS,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints a table for each model, and writes joined.json."""
    results = {"bundled model": measure(demo_model_folder(), 4 * rounds, 480, n_threads)}
    with random_package(LARGE, torch.bfloat16) as package:
        results[LARGE_NAME] = measure(package, max(1, rounds // 2), 378, n_threads)
    server = measure_server(2 * rounds, n_threads)
    for title, cases in results.items():
        table = Table("", f"{LOCKED}, s", f"{JOINED}, s", "ratio", title=title)
        for name, seconds in cases.items():
            ratio = seconds[LOCKED] / seconds[JOINED]
            table.add_row(name, f"{seconds[LOCKED]:.3f}", f"{seconds[JOINED]:.3f}", f"{ratio:.2f} x")
        show(table)
    table = Table("", "s", title=f"{n_threads} clients of a server, an image each")
    for name, value in server.items():
        table.add_row(name, f"{value:.3f}")
    show(table)
    figures = {"n_threads": n_threads, "models": results, "server": server}
    publish("joined", {"machine": machine(large=True)} | figures, folder)


if __name__ == "__main__":
    typer.run(main)
