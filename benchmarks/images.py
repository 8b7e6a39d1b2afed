"""Images per second in batches, two prompts each: our block, and core blocks with and without image cache."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show, side_by_side
from benchmarks.packages import LARGE, LARGE_NAME, OBJECTS_PER_PROMPT, random_package
from benchmarks.workflows import CACHED, NOT_CACHED, OURS, PROMPTS, block_runs, load_models
from workflow_blocks.bundled_model import demo_model_folder

BATCHES = (1, 4, 8)
N_PROMPTS = 2


def measure(package: Path, rounds: int) -> dict[str, list[float]]:
    """New images of 640 x 480 per second, for each of `BATCHES`."""
    images = [drawn_image(480, 640, seed) for seed in range(max(BATCHES))]
    models = load_models(package, images[0])
    rates: dict[str, list[float]] = {OURS: [], CACHED: [], NOT_CACHED: []}
    for batch in BATCHES:
        runs = block_runs(models, package, PROMPTS[:N_PROMPTS], images[:batch])
        for name, seconds in side_by_side(runs, rounds).items():
            rates[name].append(batch / seconds)
    return rates


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured on the large model.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table for each model, and writes and draws images.json."""
    with random_package(LARGE, torch.bfloat16) as package:
        models = {
            "bundled model": measure(demo_model_folder(), 10 * rounds),
            f"{LARGE_NAME}, {OBJECTS_PER_PROMPT} objects a prompt": measure(package, rounds),
        }
    for title, rates in models.items():
        table = Table("images at once", *(f"{name}, images/s" for name in rates), title=title)
        table.add_column("ours / core")
        table.add_column("ours / core, no cache")
        for index, batch in enumerate(BATCHES):
            ours, *core = (values[index] for values in rates.values())
            row = [f"{rate:.2f}" for rate in (ours, *core)] + [f"{ours / rate:.1f}" for rate in core]
            table.add_row(str(batch), *row)
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
