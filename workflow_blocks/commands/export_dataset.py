"""The command `workflow-blocks export-dataset`."""

from enum import Enum
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.commands.run_cluster import Address
from workflow_blocks.running.errors import RunError
from workflow_blocks.running.report import MAX_NAMES_SHOWN


class Format(str, Enum):
    """The formats, as `--format` takes them; `EXPORT_FORMATS` without importing Ray Data's packages."""

    coco = "coco"
    yolo = "yolo"
    pascal_voc = "pascal_voc"
    parquet = "parquet"


def export_dataset(
    results: Annotated[
        str, typer.Argument(metavar="RESULTS", help="The output folder of run-cluster.", show_default=False)
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="DIR|S3://...", help="The dataset's folder.", show_default=False
        ),
    ],
    format: Annotated[Format, typer.Option(help="The dataset's format.")] = Format.coco,
    address: Address = None,
    class_names: Annotated[
        list[str] | None,
        typer.Option(
            "--class-name",
            help="A class; repeat it for each, in the order of the ids.",
            show_default="those in the rows",
        ),
    ] = None,
    detections: Annotated[
        str | None,
        typer.Option(
            help="The workflow's output whose detections are exported.", show_default="the only one"
        ),
    ] = None,
    valid: Annotated[float, typer.Option(min=0, max=1, help="The share of images for validation.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="The share of images for testing.")] = 0.1,
) -> None:
    """Makes a dataset of the results of run-cluster, on Ray.

    Images whose rows have an error, and those that cannot be read any more, are left out and listed; the exit
    code is then 1.
    """
    console = Console(highlight=False, emoji=False)
    with exit_with_message(RunError):
        if valid + test > 1:
            raise RunError(f"--valid {valid} and --test {test} are more than 1 together")
        from workflow_blocks.cluster.dataset_export import Export, check_export, export_dataset
        from workflow_blocks.cluster.session import ray_session
        from workflow_blocks.cluster.store import Store

        export = Export(
            results=Store(results),
            output=Store(output),
            format=format.value,
            shares={"train": 1 - valid - test, "valid": valid, "test": test},
            class_names=tuple(class_names) if class_names else None,
            detections=detections,
        )
        check_export(export)
        with ray_session(address), console.status("Writing the dataset..."):
            summary = export_dataset(export)
    for uri, reason in list(summary.failures.items())[:MAX_NAMES_SHOWN]:
        console.print(f"[red]Left out: {escape(uri)}: {escape(reason)}[/red]", soft_wrap=True)
    if len(summary.failures) > MAX_NAMES_SHOWN:
        console.print(f"[red]... and {len(summary.failures) - MAX_NAMES_SHOWN} more[/red]")
    counts = ", ".join(f"{split} {n}" for split, n in summary.images.items())
    console.print(
        f"[bold]{sum(summary.images.values())} images ({counts}), {summary.n_boxes} boxes of "
        f"{len(summary.class_names)} classes, {len(summary.failures)} left out. "
        f"Dataset in {escape(output)}/[/bold]",
        soft_wrap=True,
    )
    if summary.failures:
        raise typer.Exit(1)
