"""The command `workflow-blocks`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from workflow_blocks.commands.demo import SAMPLE_IMAGES, run_demo
from workflow_blocks.inference_host.engine import use_local_settings, use_plugin_settings
from workflow_blocks.running.folder import (
    Run,
    RunError,
    find_files,
    find_images,
    read_definition,
    run_over_files,
)
from workflow_blocks.running.parameters import ParameterError, parse_parameters

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Moondream2 for Roboflow Workflows.",
)


@app.command()
def demo(
    images: Annotated[
        Path | None, typer.Option(help="A folder of images; without it, the bundled samples.")
    ] = None,
    prompts: Annotated[list[str] | None, typer.Option("--prompt", help="What to find; repeat it.")] = None,
    model: Annotated[str, typer.Option(help="A model id or package.")] = "moondream2-demo",
    output: Annotated[Path, typer.Option(help="Where the results are written.")] = Path("demo_output"),
) -> None:
    """Detects, visualizes and exports on a folder of images."""
    use_local_settings()
    with _told_plainly(RunError):
        run_demo(find_images(images or SAMPLE_IMAGES), prompts or list(DEFAULT_PROMPTS), model, output)


DEFAULT_PROMPTS = ("red circle", "blue star", "square", "yellow shape")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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
    with _told_plainly(RunError, ParameterError):
        definition = read_definition(workflow)
        files = find_files(source or SAMPLE_IMAGES)
        parameters = parse_parameters(context.args, definition)
        folder = output or Path("results") / Path(workflow).stem
        if not run_over_files(Run(definition, parameters, folder), files, again):
            raise typer.Exit(1)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9001,
    model_cache: Annotated[
        Path | None, typer.Option(help="Where Inference keeps models: its MODEL_CACHE_DIR.")
    ] = None,
    write_directory: Annotated[
        Path | None,
        typer.Option(help="The only folder that workflows may write into: WORKFLOW_BLOCKS_WRITE_DIRECTORY."),
    ] = None,
) -> None:
    """Starts Inference's server with this plugin; its settings are environment variables."""
    from workflow_blocks.running.server import ServerError
    from workflow_blocks.running.server import serve as serve_until_stopped

    use_plugin_settings()
    for name, folder in (
        ("MODEL_CACHE_DIR", model_cache),
        ("WORKFLOW_BLOCKS_WRITE_DIRECTORY", write_directory),
    ):
        if folder is not None:
            os.environ[name] = str(folder.resolve())
    with _told_plainly(ServerError):
        serve_until_stopped(host, port)


@app.command()
def build_model(
    weights: Annotated[
        str, typer.Option(metavar="DIR|HUB_ID", help="Published Moondream2 weights: a folder, or a hub id.")
    ] = "vikhyatk/moondream2",
    output: Annotated[Path, typer.Option(help="The package's folder, which must not exist yet.")] = Path(
        "moondream2"
    ),
    revision: Annotated[
        str | None, typer.Option(help="Of a hub id; without it, the one of 2025-06-21.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|HUB_ID",
            help="Without it, tokenizer.json beside local weights, else moondream/starmie-v1.",
        ),
    ] = None,
) -> None:
    """Makes a local model package for Inference from published Moondream2 weights."""
    from workflow_blocks.inference_host.model_package import (
        PackageError,
        build_package,
        find_tokenizer,
        find_weights,
    )
    from workflow_blocks.moondream2.checkpoint import CheckpointError, weight_files
    from workflow_blocks.moondream2.config import ConfigError

    with _told_plainly(CheckpointError, ConfigError, PackageError):
        folder = find_weights(weights, revision)
        tokenizer_file = find_tokenizer(tokenizer, weights)
        n_bytes = sum(path.stat().st_size for path in weight_files(folder))
        with _progress_bar() as progress:
            task = progress.add_task("Checking weights", total=n_bytes)
            linked = build_package(
                folder, tokenizer_file, output, lambda size: progress.update(task, advance=size)
            )
            progress.update(task, completed=n_bytes)
    how = "linked, not copied" if linked else "copied"
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"Built {output} ({n_bytes / 1e9:.2f} GB of weights, {how}). To use it, set for Inference\n"
    )
    console.print("  export ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES=True\n")
    console.print("and in a workflow definition\n")
    console.print(f'  "model_version": "{output.resolve()}"')


@contextmanager
def _told_plainly(*errors: type[Exception]) -> Iterator[None]:
    """Ends the program with the message of an error that a user can mend."""
    try:
        yield
    except errors as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error


def _progress_bar() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
