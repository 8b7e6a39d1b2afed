"""What k prompts on one new image cost: our block, and k core blocks with and without the image cache."""

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

COUNTS = (1, 2, 4, 8, 16)


def measure(package: Path, rounds: int, steps_at_once: int) -> dict[str, list[float]]:
    """Seconds for each of `COUNTS` prompts on a new 640 x 480 image."""
    image = drawn_image(480, 640)
    models = load_models(package, image)
    seconds: dict[str, list[float]] = {OURS: [], CACHED: [], NOT_CACHED: []}
    for count in COUNTS:
        runs = block_runs(models, package, PROMPTS[:count], [image], steps_at_once)
        for name, value in side_by_side(runs, rounds).items():
            seconds[name].append(value)
    return seconds


def compared(seconds: dict[str, list[float]]) -> dict[str, dict[str, list[float]]]:
    """How many times as long core blocks take."""
    ratios = {
        name: [core / ours for ours, core in zip(seconds[OURS], seconds[name], strict=True)]
        for name in (CACHED, NOT_CACHED)
    }
    return {"seconds": seconds, "ratios": ratios}


def encoding_share(ours: float, cached: float, not_cached: float) -> float:
    """Which share of the time that our block saves comes from encoding the image once."""
    return (not_cached - cached) / (not_cached - ours)


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured on the large model.")] = 3,
    steps_at_once: Annotated[
        int, typer.Option(help="How many steps run at a time; on Inference's server 8.")
    ] = 1,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table for each model, and writes and draws prompts.json."""
    with random_package(LARGE, torch.bfloat16) as package:
        models = {
            "bundled model": compared(measure(demo_model_folder(), 10 * rounds, steps_at_once)),
            f"{LARGE_NAME}, {OBJECTS_PER_PROMPT} objects a prompt": compared(
                measure(package, rounds, steps_at_once)
            ),
        }
    for title, model in models.items():
        seconds, ratios = model["seconds"], model["ratios"]
        table = Table("prompts", *(f"{name}, s" for name in seconds), title=title)
        table.add_column("ratio")
        table.add_column("ratio, no cache")
        table.add_column("saved by encoding once")
        for index, count in enumerate(COUNTS):
            times = [values[index] for values in seconds.values()]
            share = f"{encoding_share(*times):.0%}" if count > 1 else ""
            row = [f"{time:.3f}" for time in times] + [f"{values[index]:.1f}" for values in ratios.values()]
            table.add_row(str(count), *row, share)
        show(table)

    results = {"machine": machine(large=True), "image": "640 x 480", "n_prompts": COUNTS, "models": models}
    publish("prompts", results, folder)


if __name__ == "__main__":
    typer.run(main)
