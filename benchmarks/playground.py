"""How quickly the playground's page shows 300 boxes, and answers a move of a slider, in Chromium."""

import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from playwright.sync_api import Page, Route, sync_playwright
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import machine, show
from tests.real_server import running_server
from tests.running.page import CHROMIUM, READY, add_class, detect, durations, scene_file, set_slider

N_BOXES, N_CLASSES, N_MOVES = 300, 2, 40


def with_many_boxes(route: Route) -> None:
    """Hands the server's answer on with its boxes repeated, with scores from 0 to 0.96."""
    answer = route.fetch()
    document = answer.json()
    predictions: dict[str, Any] = document["outputs"][0]["predictions"]
    boxes = predictions["predictions"]
    predictions["predictions"] = [
        boxes[number % len(boxes)] | {"confidence": (number % 97) / 100} for number in range(N_BOXES)
    ]
    route.fulfill(response=answer, json=document)


def measure(page: Page, rounds: int) -> dict[str, float]:
    """Median milliseconds from the answer to the boxes, and of what a move of a slider does."""
    page.route("**/workflows/run", with_many_boxes)
    page.set_input_files("#files", scene_file())
    add_class(page, "shape", "star")
    for _ in range(rounds + 1):
        detect(page)
    for move in range(N_MOVES):
        set_slider(page, move / N_MOVES, row=move % N_CLASSES)
    # What a move does at once, and what it does before the next frame.
    at_once, before_frame = (
        durations(page, f"playground:{part}")[-N_MOVES:] for part in ("slider", "refresh")
    )
    return {
        "boxes_ms": median(durations(page, "playground:boxes")[-rounds:]),
        "slider_ms": median(at_once) + median(before_frame),
    }


def main(
    rounds: Annotated[int, typer.Option(help="How often boxes are drawn.")] = 10,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints a table, and writes playground.json. It needs the command `chromium`."""
    if CHROMIUM is None:
        raise typer.BadParameter("install Debian's package `chromium`: there is no such command")
    with (
        tempfile.TemporaryDirectory() as work,
        running_server(Path(work)) as server,
        sync_playwright() as playwright,
    ):
        # Chromium's sandbox does not start for root, as which containers run.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{server.address}/playground")
        page.wait_for_selector(READY)
        page.click("#clear")
        results = measure(page, rounds)
        browser.close()
    table = Table("", "ms", title=f"{N_BOXES} boxes on the page")
    table.add_row("from the answer to the boxes", f"{results['boxes_ms']:.1f}")
    table.add_row("a move of a slider", f"{results['slider_ms']:.1f}")
    show(table)
    publish("playground", {"machine": machine(), "boxes": N_BOXES} | results, folder)


if __name__ == "__main__":
    typer.run(main)
