"""The command `workflow-blocks demo`: `run` with one definition and a table of what it finds."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.commands.run import Help, Input
from workflow_blocks.commands.workflow_help import parameters_panel
from workflow_blocks.inference_host.engine import use_local_settings
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import SAMPLE_IMAGES, find_files, skipped_files
from workflow_blocks.running.folder import Run, run_over_files
from workflow_blocks.running.parameters import ParameterError, parse_parameters
from workflow_blocks.running.report import detections_by_image, print_summary, write_summary
from workflow_blocks.settings_error import SettingsError

WORKFLOW = "detect_visualize_export"
DEFAULT_PROMPTS = ["car", "elephant", "soccer ball", "wine glass"]


def demo(
    context: typer.Context,
    source: Input = SAMPLE_IMAGES,
    images: Annotated[Path | None, typer.Option(hidden=True, help="The earlier name of --input.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(hidden=True, help="The earlier form of --prompts.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The results' folder.")] = Path(
        "demo_output"
    ),
    show_help: Help = False,
) -> None:
    """Detects, visualizes and exports on a folder of images.

    It is `workflow-blocks run detect_visualize_export --again` with a table of what was found in each image.
    """
    definition = read_definition(WORKFLOW)
    defaults = {
        "prompts": prompt or DEFAULT_PROMPTS,
        "target_directory": str(output),
        "dataset_directory": str(output / "dataset"),
    }
    if show_help:
        context.get_help()
        Console().print(parameters_panel(definition, defaults))
        return
    with exit_with_message(RunError, ParameterError, SettingsError):
        use_local_settings()
        parameters = defaults | parse_parameters(context.args, definition)
        job = Run(definition, parameters, output)
        source = images or source
        result = run_over_files(job, find_files(source), again=True)
        write_summary(job, result)
    console = Console(highlight=False, emoji=False)
    console.print(detections_by_image(result))
    print_summary(console, job, result, skipped_files(source))
    console.print(
        "  detections_*.csv          one row per detection\n  dataset/                  a COCO dataset"
    )
    if result.failures:
        raise typer.Exit(1)
