"""The command `workflow-blocks run`."""

from pathlib import Path
from typing import Annotated

import typer

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.inference_host.engine import use_local_settings
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import SAMPLE_IMAGES, find_files
from workflow_blocks.running.folder import Run, run_over_files
from workflow_blocks.running.parameters import ParameterError, parse_parameters


def run(
    context: typer.Context,
    workflow: Annotated[str, typer.Argument(help="A definition's file, or the name of a bundled one.")],
    source: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="A folder, an image or a video; without it, the bundled samples."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The results' folder.", show_default="results/NAME")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Start anew rather than go on.")] = False,
) -> None:
    """Runs a workflow over a folder of images and videos.

    The workflow's parameters follow as --NAME VALUE..., for instance --prompts "red circle" "blue star".
    A second run goes on where the first one stopped. The exit code is 1 if a file could not be worked on.
    """
    use_local_settings()
    with exit_with_message(RunError, ParameterError):
        definition = read_definition(workflow)
        files = find_files(source or SAMPLE_IMAGES)
        parameters = parse_parameters(context.args, definition)
        folder = output or Path("results") / Path(workflow).stem
        if not run_over_files(Run(definition, parameters, folder), files, again):
            raise typer.Exit(1)
