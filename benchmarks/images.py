"""Images per second in batches of 1, 4 and 8, two prompts each: our block and core blocks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show, side_by_side
from benchmarks.packages import LARGE, LARGE_NAME, OBJECTS_PER_PROMPT, random_package
from benchmarks.workflows import PROMPTS, core_blocks, our_block
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.engine import make_model_manager

BATCHES = (1, 4, 8)
N_PROMPTS = 2
OURS, CORE = "our block", "core blocks"


def measure(model_manager: Any, package: Path, rounds: int) -> dict[str, list[float]]:
    """Images of 640 x 480 per second, for each of `BATCHES`."""
    images = [drawn_image(480, 640, seed) for seed in range(max(BATCHES))]
    prompts = PROMPTS[:N_PROMPTS]
    ours = our_block(model_manager, str(package), prompts)
    core = core_blocks(model_manager, str(package), prompts)
    rates: dict[str, list[float]] = {OURS: [], CORE: []}
    for batch in BATCHES:
        runs: dict[str, Callable[[], object]] = {
            OURS: partial(ours, images[:batch]),
            CORE: partial(core, images[:batch]),
        }
        if batch == 1:
            side_by_side(runs, 1)  # loads the model, and does not count
        for name, seconds in side_by_side(runs, rounds).items():
            rates[name].append(batch / seconds)
    return rates


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured on the large model.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table for each model, and writes and draws images.json."""
    model_manager = make_model_manager()
    with random_package(LARGE, torch.bfloat16) as package:
        models = {
            "bundled model": measure(model_manager, demo_model_folder(), 10 * rounds),
            f"{LARGE_NAME}, {OBJECTS_PER_PROMPT} objects a prompt": measure(model_manager, package, rounds),
        }
    for title, rates in models.items():
        table = Table("images at once", *(f"{name}, images/s" for name in rates), "ours / core", title=title)
        for index, batch in enumerate(BATCHES):
            ours, core = rates[OURS][index], rates[CORE][index]
            table.add_row(str(batch), f"{ours:.2f}", f"{core:.2f}", f"{ours / core:.1f}")
        show(table)

    results = {
        "machine": machine(large=True),
        "image": "640 x 480",
        "n_prompts": N_PROMPTS,
        "n_images": BATCHES,
        "models": models,
    }
    publish("images", results, folder)


if __name__ == "__main__":
    typer.run(main)
