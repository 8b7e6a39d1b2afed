"""The command `workflow-blocks run-cluster`."""

import dataclasses
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.commands.run import Help, Workflow
from workflow_blocks.commands.workflow_help import definitions_panel, parameters_panel
from workflow_blocks.inference_host.engine import use_local_settings
from workflow_blocks.running.definitions import read_definition
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.parameters import ParameterError, parse_parameters
from workflow_blocks.settings_error import SettingsError

Address = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT",
        help="The Ray cluster; `auto` for the one of this machine.",
        show_default="Ray starts on this machine",
    ),
]


def run_cluster(
    context: typer.Context,
    workflow: Workflow = "",
    source: Annotated[
        str,
        typer.Option(
            "--input",
            "-i",
            metavar="DIR|S3://...|FILE.parquet",
            help="A folder, a prefix on object storage, or a Parquet file with the column `uri`.",
            show_default=False,
        ),
    ] = "",
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="DIR|S3://...", help="The results' folder.", show_default=False
        ),
    ] = "",
    address: Address = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|M,N", help="How many workers, or the least and the most.", show_default="all that fit"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one run of the workflow.")] = 32,
    cpus_per_worker: Annotated[float, typer.Option(min=0, help="CPUs of a worker.")] = 0.9,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs of a worker.")] = 0,
    again: Annotated[
        bool, typer.Option("--again", help="Remove the results of an earlier job, and process all images.")
    ] = False,
    show_help: Help = False,
) -> None:
    """Runs a workflow over many images on a Ray cluster.

    The workflow's parameters follow as --PARAMETER VALUE..., as for `run`. Results are Parquet files in
    rows/, one row for each image; failed images are rows with an error, and are also listed in
    failures.parquet. If it is stopped or killed, the same command continues. If images fail, the exit code
    is 1.
    """
    with exit_with_message(RunError, ParameterError, SettingsError):
        if show_help:
            panel = parameters_panel(read_definition(workflow)) if workflow else definitions_panel()
            context.get_help()
            Console().print(panel)
            return
        for name, value in (("a workflow", workflow), ("--input", source), ("--output", output)):
            if not value:
                raise RunError(f"give {name}; workflow-blocks run-cluster --help explains it")
        definition = read_definition(workflow)
        parameters = parse_parameters(context.args, definition)
        counts = None if workers is None else _counts(workers)
        use_local_settings()
        from workflow_blocks.cluster.job import Job, run_job

        job = Job(
            definition=definition,
            source=source,
            output=output,
            parameters=parameters,
            workers=counts,
            batch_size=batch_size,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            address=address,
            again=again,
        )
        console = Console(highlight=False, emoji=False)
        try:
            summary = run_job(job, console)
        except KeyboardInterrupt:
            console.print("Stopped. The same command continues.")
            raise typer.Exit(130) from None
    _print_summary(console, output, dataclasses.asdict(summary))
    if summary.n_failed:
        raise typer.Exit(1)


def _counts(workers: str) -> tuple[int, int]:
    parts = workers.split(",")
    if len(parts) <= 2 and all(part.strip().isdecimal() for part in parts):
        least, most = int(parts[0]), int(parts[-1])
        if 1 <= least <= most:
            return least, most
    raise ParameterError(f"--workers is {workers!r}; give N, or M,N for the least and the most, from 1 up")


def _print_summary(console: Console, output: str, summary: dict[str, float]) -> None:
    before = f", {summary['n_done_before']} of them before" if summary["n_done_before"] else ""
    for name, meaning in (
        ("n_equal", "addresses were given more than once; each image has one row"),
        ("n_skipped", "files are no images, and were skipped"),
    ):
        if summary[name]:
            console.print(f"{summary[name]} {meaning}.", soft_wrap=True)
    console.print(
        f"[bold]{summary['n_images']} rows{before}, {summary['n_failed']} of them failed. "
        f"{summary['images_per_second']:.1f} images/s. Results in {escape(output)}/[/bold]\n"
        "  rows/             Parquet, one row per image\n"
        "  failures.parquet  the rows with an error",
        soft_wrap=True,
    )
