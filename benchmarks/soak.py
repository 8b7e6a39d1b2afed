"""Load on a real server for minutes: 16 clients, mixed workflows and image sizes, some of them bad."""

import base64
import json
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlparse

import cv2
import numpy as np
import psutil
import requests
import typer
from rich.progress import Progress
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import console, drawn_image, machine, show
from benchmarks.plots import percentiles
from tests.real_server import RealServer, running_server

WORKFLOWS: dict[str, dict[str, Any]] = {
    "detect_and_visualize": {"prompts": ["red circle", "blue star", "square"]},
    "count_by_prompt": {"prompts": ["circle", "star", "square", "triangle"]},
    "redact_by_prompt": {"prompts": "shape"},
    "tiled_small_objects": {"prompts": "shape"},
    "crop_and_prompt_again": {"prompts": "shape", "part_prompts": ["circle"]},
}
SIZES = ((240, 320), (480, 640), (720, 1280))
BAD_SHARE = 0.15
TOLERANCE_PIXELS = 0.1
REQUEST_TIMEOUT_S = 120
MAX_GROWTH = 0.05


@dataclass(frozen=True)
class Request:
    """A request and what its answer must hold."""

    workflow: str
    body: bytes
    boxes: list[list[float]]


@dataclass
class Findings:
    """What clients met; seconds by workflow, memory in bytes by the second."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in WORKFLOWS})
    problems: list[str] = field(default_factory=list)
    n_bad: int = 0
    memory: list[tuple[float, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def boxes_in(answer: dict[str, Any]) -> list[list[float]]:
    """All boxes of all outputs, in an order of their own."""
    (outputs,) = answer["outputs"]
    predictions = [value for value in outputs.values() if isinstance(value, dict) and "predictions" in value]
    boxes = [
        [box["class_id"], box["x"], box["y"], box["width"], box["height"]]
        for value in predictions
        for box in value["predictions"]
    ]
    return sorted(boxes)


def make_requests(server: RealServer) -> list[Request]:
    """Every workflow on every size of image, with what the server answers while it has nothing else to do."""
    made = []
    for (name, parameters), (height, width) in product(WORKFLOWS.items(), SIZES):
        data = cv2.imencode(".jpg", drawn_image(height, width))[1].tobytes()
        image = {"type": "base64", "value": base64.b64encode(data).decode()}
        body = json.dumps({"inputs": {"image": image} | parameters}).encode()
        made.append(Request(name, body, boxes_in(post(server, name, body).json())))
    return made


def post(server: RealServer, workflow: str, body: bytes) -> requests.Response:
    return requests.post(
        f"{server.address}/local/workflows/{workflow}",
        data=body,
        headers={"Content-Type": "application/json"},
        timeout=REQUEST_TIMEOUT_S,
    )


def send_good(server: RealServer, request: Request, findings: Findings) -> None:
    start = time.perf_counter()
    response = post(server, request.workflow, request.body)
    seconds = time.perf_counter() - start
    problem = None
    if response.status_code != 200:
        problem = f"{request.workflow}: HTTP {response.status_code}: {response.text[:200]}"
    else:
        found = np.array(boxes_in(response.json()))
        expected = np.array(request.boxes)
        if found.shape != expected.shape or not np.allclose(found, expected, atol=TOLERANCE_PIXELS):
            problem = f"{request.workflow}: {len(found)} boxes, not the {len(expected)} that it should give"
    with findings.lock:
        findings.seconds[request.workflow].append(seconds)
        if problem:
            findings.problems.append(problem)


def send_bad(server: RealServer, request: Request, chance: random.Random) -> str | None:
    """What clients do wrong; gives what is wrong with the answer."""
    match chance.randrange(5):
        case 0:
            hang_up(server, request.body[: len(request.body) // 2])
            return None
        case 1:
            response = post(server, request.workflow, chance.randbytes(1000))
        case 2:
            image = {"type": "base64", "value": "bm8gaW1hZ2U="}
            response = post(server, request.workflow, json.dumps({"inputs": {"image": image}}).encode())
        case 3:
            document = json.loads(request.body)
            document["inputs"]["prompts"] = " "
            response = post(server, request.workflow, json.dumps(document).encode())
        case _:
            document = json.loads(request.body)
            document["inputs"]["model"] = "/no/such/package"
            response = post(server, request.workflow, json.dumps(document).encode())
    if 400 <= response.status_code < 500:
        return None
    return f"a bad request was answered {response.status_code}: {response.text[:200]}"


def hang_up(server: RealServer, half_body: bytes) -> None:
    """Goes away in the middle of a request."""
    address = urlparse(server.address)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(
            b"POST /local/workflows/count_by_prompt HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {2 * len(half_body)}\r\n\r\n".encode()
            + half_body
        )


def client(
    number: int, server: RealServer, made: list[Request], findings: Findings, is_over: Callable[[], bool]
) -> None:
    chance = random.Random(number)
    while not is_over():
        request = chance.choice(made)
        try:
            if chance.random() < BAD_SHARE:
                problem = send_bad(server, request, chance)
                with findings.lock:
                    findings.n_bad += 1
                    findings.problems += [problem] if problem else []
            else:
                send_good(server, request, findings)
        except requests.RequestException as error:
            with findings.lock:
                findings.problems.append(f"{request.workflow}: {error!r}")


def soak(server: RealServer, minutes: float, n_clients: int) -> Findings:
    """Sends requests from all clients and watches the server's memory."""
    made, findings = make_requests(server), Findings()
    end = time.monotonic() + minutes * 60
    clients = [
        threading.Thread(target=client, args=(number, server, made, findings, lambda: time.monotonic() > end))
        for number in range(n_clients)
    ]
    for thread in clients:
        thread.start()
    process, start = psutil.Process(server.process_id), time.monotonic()
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{n_clients} clients", total=minutes * 60)
        while any(thread.is_alive() for thread in clients):
            passed = time.monotonic() - start
            findings.memory.append((passed, process.memory_info().rss))
            progress.update(task, completed=passed)
            time.sleep(1)
    return findings


def growth(memory: list[tuple[float, int]]) -> float:
    """How much the fitted line of the second half rises, as a share of where it begins."""
    second_half = np.array(memory[len(memory) // 2 :], dtype=float)
    slope, start = np.polyfit(second_half[:, 0] - second_half[0, 0], second_half[:, 1], 1)
    return float(slope * (second_half[-1, 0] - second_half[0, 0]) / start)


def main(
    minutes: Annotated[float, typer.Option(help="How long.")] = 5.0,
    clients: Annotated[int, typer.Option(help="How many at once.")] = 16,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table, writes and draws soak.json; exit code 1 for a wrong answer or a leak."""
    # The same images come again and again: without the cache each is encoded anew.
    with (
        tempfile.TemporaryDirectory() as work,
        running_server(Path(work), MOONDREAM2_IMAGE_CACHE_MB="0") as server,
    ):
        findings = soak(server, minutes, clients)
    grown = growth(findings.memory)
    n_good = sum(map(len, findings.seconds.values()))
    table = Table(
        "workflow",
        "answers",
        "median, s",
        "95 %, s",
        "99 %, s",
        title=f"{clients} clients, {minutes:g} minutes",
    )
    for name, seconds in findings.seconds.items():
        marks = np.percentile(seconds, [50, 95, 99])
        table.add_row(name, str(len(seconds)), *(f"{mark:.2f}" for mark in marks))
    show(table)
    console.print(
        f"{n_good} good requests ({n_good / minutes / 60:.1f} a second) beside {findings.n_bad} bad ones: "
        f"{len(findings.problems)} wrong answers or errors. Memory grew by {grown:.1%} over the second half."
    )
    for problem in findings.problems[:10]:
        console.print(f"  {problem}")

    results = {
        "machine": machine(),
        "image": ", ".join(f"{width} x {height}" for height, width in SIZES),
        "n_clients": clients,
        "minutes": minutes,
        "n_good": n_good,
        "n_bad": findings.n_bad,
        "n_problems": len(findings.problems),
        "growth": grown,
        "seconds": {name: percentiles(seconds) for name, seconds in findings.seconds.items()},
        "memory": [(round(second), round(n_bytes / 2**30, 4)) for second, n_bytes in findings.memory],
    }
    publish("soak", results, folder)
    if findings.problems or grown > MAX_GROWTH:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
