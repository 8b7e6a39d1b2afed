"""The command `workflow-blocks run`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.panel import Panel

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.commands.workflow_help import definitions_panel, parameters_panel
from workflow_blocks.inference_host.engine import use_local_settings
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.files import SAMPLE_IMAGES, find_files, skipped_files
from workflow_blocks.running.folder import Run, run_over_files
from workflow_blocks.running.parameters import (
    ParameterError,
    parse_parameters,
    read_parameters,
    with_directories_in,
)
from workflow_blocks.running.report import counts_by_class, print_summary, write_summary
from workflow_blocks.settings_error import SettingsError

Workflow = Annotated[
    str,
    typer.Argument(
        metavar="NAME|FILE",
        help="A bundled definition's name, or a definition's file.",
        show_default=False,
    ),
]
# How `run` and `demo` name the same things.
Input = Annotated[
    Path,
    typer.Option("--input", "-i", help="A folder, an image or a video.", show_default="the bundled samples"),
]
Help = Annotated[bool, typer.Option("--help", help="Show this message and exit.", show_default=False)]


def run(
    context: typer.Context,
    workflow: Workflow = "",
    source: Input = SAMPLE_IMAGES,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The results' folder.", show_default="results/NAME")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Remove the results of earlier runs, and process all files.")
    ] = False,
    parameters: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON: parameters by name, such as prompts.json of evaluate.",
            show_default=False,
        ),
    ] = None,
    show_help: Help = False,
) -> None:
    """Runs a workflow over a folder of images and videos.

    The workflow's parameters follow as --PARAMETER VALUE..., for instance --prompts elephant "soccer ball".
    A second run skips the files that have results and did not change. If a file fails, the others are still
    processed, the failure is listed, and the exit code is 1. Folders that the workflow writes to
    (--..._directory) are in the results' folder unless you name them.
    """
    with exit_with_message(RunError, ParameterError, SettingsError):
        if show_help:
            panel = _parameters_of(workflow, output) if workflow else definitions_panel()
            context.get_help()
            Console().print(panel)
            return
        if not workflow:
            raise RunError("name a workflow; workflow-blocks run --help lists the bundled ones")
        use_local_settings()
        definition = read_definition(workflow)
        files = find_files(source)
        folder = output or _default_output(workflow)
        given = read_parameters(parameters, definition) if parameters else {}
        given |= parse_parameters(context.args, definition)
        job = Run(definition, with_directories_in(folder, given, definition), folder)
        result = run_over_files(job, files, again)
        write_summary(job, result)
    console = Console(highlight=False, emoji=False)
    if table := counts_by_class(result):
        console.print(table)
    print_summary(console, job, result, skipped_files(source))
    if result.failures:
        raise typer.Exit(1)


def _default_output(workflow: str) -> Path:
    return Path("results") / Path(workflow).stem


def _parameters_of(workflow: str, output: Path | None) -> Panel:
    definition = read_definition(workflow)
    folders = with_directories_in(output or _default_output(workflow), {}, definition)
    return parameters_panel(definition, folders)
