"""The command `workflow-blocks benchmark`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from workflow_blocks.bundled_model import DEMO_MODEL
from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.commands.packages import PackageNotFoundError, package_folder
from workflow_blocks.settings_error import SettingsError

if TYPE_CHECKING:
    from workflow_blocks.evaluation.image_seconds import ImageSeconds
    from workflow_blocks.moondream2.config import Moondream2Config

_SLOW_CROP = 0.2  # seconds
_FEW_CROPS = 4
_LARGE_SPREAD = 0.25


def benchmark(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PACKAGE",
            help=f"The folder of a model package, or {DEMO_MODEL}.",
            show_default="the released Moondream2's sizes",
        ),
    ] = None,
) -> None:
    """Says how many seconds an image takes on this machine.

    It measures one crop and one token with the MOONDREAM2_* settings in force, and calculates whole images
    from them. Without --model it needs no weights: it measures a few layers of the released sizes.
    """
    console = Console(highlight=False)
    with console.status("Loading (the imports take a while)..."):
        from workflow_blocks.evaluation.image_seconds import RELEASED, measure_package, measure_released_size
        from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, CheckpointError
        from workflow_blocks.moondream2.config import ConfigError, Moondream2Config
        from workflow_blocks.moondream2.revision import RevisionError
    with exit_with_message(PackageNotFoundError, SettingsError, CheckpointError, ConfigError, RevisionError):
        if model is None:
            with console.status("Measuring a few layers of the released sizes..."):
                measured, config, name = measure_released_size(), RELEASED, "the released Moondream2"
        else:
            folder = package_folder(model)
            with console.status(f"Measuring {model}..."):
                measured = measure_package(folder)
            config, name = Moondream2Config.from_file(folder / CONFIG_FILE), model
    _report(measured, config, name, console)


def _report(measured: "ImageSeconds", config: "Moondream2Config", name: str, console: Console) -> None:
    import torch

    from workflow_blocks.evaluation.image_seconds import (
        IMAGE_SIZES,
        OBJECTS_PER_PROMPT,
        PROMPT_COUNTS,
        crops_of,
    )

    table = Table("image", "crops", "encode it", title=f"Seconds for an image with {name}")
    for count in PROMPT_COUNTS:
        table.add_column(f"encode it, and detect {count} prompt{'s' if count > 1 else ''}")
    for width, height in IMAGE_SIZES:
        n_crops = crops_of(width, height, config, measured.max_crops)
        encode = measured.encode(n_crops)
        totals = [encode + measured.detect(count) for count in PROMPT_COUNTS]
        table.add_row(f"{width} x {height}", str(n_crops), *(_shown(value) for value in (encode, *totals)))
    console.print(table)
    crops = "crop" if measured.max_crops == 1 else "crops"
    console.print(
        f"Settings: {measured.dtype} on {measured.device}, at most {measured.max_crops} {crops} beside the "
        f"whole image, {torch.get_num_threads()} threads."
    )
    notes = [
        f"One crop takes {_shown(measured.crop)} s, and a token of one prompt {_shown(measured.step[1])} s. "
        f"The rest is calculated from these, with {OBJECTS_PER_PROMPT} objects for each prompt. Further "
        "prompts on the same image do not encode it again."
    ]
    if measured.measured_layers is not None:
        vision, text = measured.measured_layers
        notes.append(
            f"Measured on {vision} of {config.vision.enc_n_layers} vision layers and {text} of "
            f"{config.text.n_layers} text layers, with random weights, and calculated for all. Whether the "
            "model fits this machine's memory was not tried."
        )
    if measured.device == "cpu" and measured.crop > _SLOW_CROP and (faster := _faster(measured)):
        notes.append(f"Faster: {' and '.join(faster)}; docs/speed.md says what they cost.")
    if measured.spread > _LARGE_SPREAD:
        console.print(
            f"[yellow]The machine was busy: the usual round was {measured.spread:.0%} slower than the "
            "quickest, which is shown. Close other programs, and measure again.[/yellow]"
        )
    for note in notes:
        console.print(note, style="dim")


def _faster(measured: "ImageSeconds") -> list[str]:
    """Settings that are faster on this CPU, and not in force."""
    from workflow_blocks.moondream2.int8 import int8_problem
    from workflow_blocks.moondream2.settings import load_settings

    faster = []
    if measured.dtype != "int8" and not load_settings().compile and int8_problem() is None:
        faster.append("MOONDREAM2_DTYPE=int8")
    if measured.max_crops > _FEW_CROPS:
        faster.append(f"MOONDREAM2_MAX_CROPS={_FEW_CROPS}")
    return faster


def _shown(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds < 0.1 else f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"
