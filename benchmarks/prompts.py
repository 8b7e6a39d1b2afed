"""What k prompts on one image cost: our block, k core blocks, and the runtime prompt by prompt."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show, side_by_side
from benchmarks.packages import DEVICE, LARGE, LARGE_NAME, OBJECTS_PER_PROMPT, random_package
from benchmarks.workflows import PROMPTS, core_blocks, our_block
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.engine import make_model_manager
from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.moondream2.runtime import Query

COUNTS = (1, 2, 4, 8, 16)
OURS, CORE, ONE_BY_ONE = "our block", "core blocks", "runtime, prompt by prompt"


def measure(model_manager: Any, package: Path, max_objects: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for each of `COUNTS` prompts on one 640 x 480 image."""
    image = drawn_image(480, 640)
    detector = load_runtime(package, DEVICE)

    def one_by_one(prompts: list[str]) -> None:
        (encoded,) = detector.encode_images([image])
        for prompt in prompts:
            detector.detect([Query(encoded, prompt)], max_objects)

    seconds: dict[str, list[float]] = {OURS: [], CORE: [], ONE_BY_ONE: []}
    for count in COUNTS:
        prompts = PROMPTS[:count]
        ours = our_block(model_manager, str(package), prompts)
        core = core_blocks(model_manager, str(package), prompts)
        runs: dict[str, Callable[[], object]] = {
            OURS: partial(ours, image),
            CORE: partial(core, image),
            ONE_BY_ONE: partial(one_by_one, prompts),
        }
        if count == 1:
            side_by_side(runs, 1)  # loads the model, and does not count
        for name, value in side_by_side(runs, rounds).items():
            seconds[name].append(value)
    return seconds


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured on the large model.")] = 2,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table for each model, and writes and draws prompts.json."""
    model_manager = make_model_manager()
    with random_package(LARGE, torch.bfloat16) as package:
        models = {
            "bundled model": measure(model_manager, demo_model_folder(), 50, 15 * rounds),
            f"{LARGE_NAME}, {OBJECTS_PER_PROMPT} objects a prompt": measure(
                model_manager, package, OBJECTS_PER_PROMPT, rounds
            ),
        }
    for title, seconds in models.items():
        table = Table(
            "prompts", *(f"{name}, s" for name in seconds), "core / ours", "ours / one prompt", title=title
        )
        for index, count in enumerate(COUNTS):
            ours, core = seconds[OURS][index], seconds[CORE][index]
            row = [f"{values[index]:.3f}" for values in seconds.values()]
            table.add_row(str(count), *row, f"{core / ours:.1f}", f"{ours / seconds[OURS][0]:.2f}")
        show(table)

    measured = {
        title: {
            "seconds": seconds,
            "ratios": [core / ours for ours, core in zip(seconds[OURS], seconds[CORE], strict=True)],
        }
        for title, seconds in models.items()
    }
    results = {"machine": machine(large=True), "image": "640 x 480", "n_prompts": COUNTS, "models": measured}
    publish("prompts", results, folder)


if __name__ == "__main__":
    typer.run(main)
