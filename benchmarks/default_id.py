"""Eight prompts on one image: our block, and what core steps with Inference's own class do for them.

Inference's own Moondream2 needs code that comes with the released weights, which cannot be shipped here. Its
work is replayed on the parts of this plugin's runtime: for each prompt it encodes the image and decodes the
prompt alone, in bfloat16. The rows between show what each difference gives: the dtype, sharing the encoding,
and decoding together.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import drawn_image, machine, show, side_by_side
from benchmarks.packages import DEVICE, LARGE, LARGE_NAME, OBJECTS_PER_PROMPT, random_package
from benchmarks.workflows import PROMPTS, without_image_cache
from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.moondream2.image_crops import UInt8Array
from workflow_blocks.moondream2.runtime import Query, Runtime

N_PROMPTS = 8


def encode_for_each_prompt(runtime: Runtime, image: UInt8Array) -> None:
    """As a core step for each prompt: nothing is shared."""
    for prompt in PROMPTS[:N_PROMPTS]:
        (encoded,) = runtime.encode_images([image])
        runtime.detect([Query(encoded, prompt)], OBJECTS_PER_PROMPT)


def encode_once(runtime: Runtime, image: UInt8Array) -> None:
    """The image is encoded once; prompts are decoded one after another."""
    (encoded,) = runtime.encode_images([image])
    for prompt in PROMPTS[:N_PROMPTS]:
        runtime.detect([Query(encoded, prompt)], OBJECTS_PER_PROMPT)


def all_together(runtime: Runtime, image: UInt8Array) -> None:
    """As our block: the image is encoded once, and all prompts are decoded together."""
    (encoded,) = runtime.encode_images([image])
    runtime.detect([Query(encoded, prompt) for prompt in PROMPTS[:N_PROMPTS]], OBJECTS_PER_PROMPT)


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 2,
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = FOLDER,
) -> None:
    """Prints a table, and writes default_id.json."""
    device = torch.device(DEVICE)
    with random_package(LARGE, torch.bfloat16) as package:
        in_bfloat16 = Runtime.from_folder(package, device, torch.bfloat16)
        with without_image_cache():
            ours = load_runtime(package, device)
    image = drawn_image(480, 640)
    dtype = str(ours.placement[1]).removeprefix("torch.")
    runs: dict[str, Callable[[], object]] = {
        "Inference's class, replayed (bfloat16)": lambda: encode_for_each_prompt(in_bfloat16, image),
        f"the same in {dtype}, as our block": lambda: encode_for_each_prompt(ours, image),
        "with the encoding shared": lambda: encode_once(ours, image),
        "our block: prompts decoded together, too": lambda: all_together(ours, image),
    }
    seconds = side_by_side(runs, rounds)
    fastest = list(seconds.values())[-1]
    table = Table(
        "",
        "s",
        "times our block",
        title=f"{LARGE_NAME}, {N_PROMPTS} prompts, {OBJECTS_PER_PROMPT} objects each",
    )
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}", f"{value / fastest:.1f}")
    show(table)
    publish("default_id", {"machine": machine(large=True), "dtype": dtype, "seconds": seconds}, folder)


if __name__ == "__main__":
    typer.run(main)
