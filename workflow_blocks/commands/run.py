"""The command `workflow-blocks run`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.commands.workflow_help import definitions_panel, parameters_panel
from workflow_blocks.inference_host.engine import use_local_settings
from workflow_blocks.inference_host.runtime_choice import RuntimeChoiceError
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import SAMPLE_IMAGES, find_files
from workflow_blocks.running.folder import Run, run_over_files
from workflow_blocks.running.parameters import ParameterError, parse_parameters
from workflow_blocks.running.report import counts_by_prompt, print_summary, write_summary

# How `run` and `demo` name the same things.
Input = Annotated[
    Path,
    typer.Option("--input", "-i", help="A folder, an image or a video.", show_default="the bundled samples"),
]
Help = Annotated[bool, typer.Option("--help", help="Show this message and exit.", show_default=False)]


def run(
    context: typer.Context,
    workflow: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="A bundled definition's name, or a definition's file.",
            show_default=False,
        ),
    ] = "",
    source: Input = SAMPLE_IMAGES,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The results' folder.", show_default="results/NAME")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Process all files again, also those that have results.")
    ] = False,
    show_help: Help = False,
) -> None:
    """Runs a workflow over a folder of images and videos.

    The workflow's parameters follow as --PARAMETER VALUE..., for instance --prompts "red circle" "blue star".
    A second run skips the files that have results. If a file fails, the others are still processed, the
    failure is listed, and the exit code is 1.
    """
    with exit_with_message(RunError, ParameterError, RuntimeChoiceError):
        if show_help:
            context.get_help()
            Console().print(parameters_panel(read_definition(workflow)) if workflow else definitions_panel())
            return
        if not workflow:
            raise RunError("name a workflow; workflow-blocks run --help lists the bundled ones")
        use_local_settings()
        definition = read_definition(workflow)
        files = find_files(source)
        job = Run(
            definition,
            parse_parameters(context.args, definition),
            output or Path("results") / Path(workflow).stem,
        )
        result = run_over_files(job, files, again)
        write_summary(job, result)
    console = Console(highlight=False)
    if table := counts_by_prompt(job):
        console.print(table)
    print_summary(console, job, result)
    if result.failures:
        raise typer.Exit(1)
