"""What the block and the engine add to the model's own time, for one 1280 x 720 image."""

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show
from benchmarks.plots import percentiles
from benchmarks.workflows import PROMPTS, core_blocks, our_block
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.engine import make_model_manager
from workflow_blocks.inference_host.model import Moondream2Model


def measure(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each run that were not spent in the model, with one prompt."""
    in_model = 0.0
    detect = Moondream2Model.detect

    def timed(*arguments: Any, **others: Any) -> Any:
        nonlocal in_model
        start = time.perf_counter()
        result = detect(*arguments, **others)
        in_model += time.perf_counter() - start
        return result

    Moondream2Model.detect = timed  # type: ignore[method-assign]
    model_manager, package, image = make_model_manager(), str(demo_model_folder()), drawn_image(720, 1280)
    runs = {
        "our block": our_block(model_manager, package, PROMPTS[:1]),
        "core block": core_blocks(model_manager, package, PROMPTS[:1]),
    }
    added: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 3):
        for name, run in runs.items():
            in_model = 0.0
            start = time.perf_counter()
            run(image)
            if number >= 3:
                added[name].append((time.perf_counter() - start - in_model) * 1e3)
    return added


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 100,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table, and writes and draws overhead.json."""
    added = measure(rounds)
    table = Table("", "median, ms", "9 of 10 below, ms", title="Block and engine, one 1280 x 720 image")
    for name, values in added.items():
        table.add_row(
            name, f"{statistics.median(values):.2f}", f"{statistics.quantiles(values, n=10)[-1]:.2f}"
        )
    show(table)

    milliseconds = {name: percentiles(values) for name, values in added.items()}
    publish("overhead", {"machine": machine(), "image": "1280 x 720", "milliseconds": milliseconds}, folder)


if __name__ == "__main__":
    typer.run(main)
