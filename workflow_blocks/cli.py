"""The command `workflow-blocks`."""

from pathlib import Path
from typing import Annotated

import typer

from workflow_blocks.demo import SAMPLE_IMAGES, DemoError, find_images, run_demo
from workflow_blocks.local_engine import use_local_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Moondream2 for Roboflow Workflows.")


@app.callback()
def main() -> None:
    """Keeps `demo` a subcommand while it is the only one."""


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
    try:
        run_demo(find_images(images or SAMPLE_IMAGES), prompts or list(DEFAULT_PROMPTS), model, output)
    except DemoError as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error


DEFAULT_PROMPTS = ("red circle", "blue star", "square", "yellow shape")


if __name__ == "__main__":
    app()
