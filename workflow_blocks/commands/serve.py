"""The command `workflow-blocks serve`."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.inference_host.engine import use_plugin_settings


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")] = 9001,
    model_cache: Annotated[
        Path | None,
        typer.Option(help="Where Inference stores models: its MODEL_CACHE_DIR.", show_default=False),
    ] = None,
    write_directory: Annotated[
        Path | None,
        typer.Option(
            help="The only folder that workflows may write to: WORKFLOW_BLOCKS_WRITE_DIRECTORY.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Starts Inference's server with this plugin; its settings are environment variables."""
    from workflow_blocks.inference_host.runtime_choice import RuntimeChoiceError
    from workflow_blocks.running.server import ServerError
    from workflow_blocks.running.server import serve as serve_until_stopped

    logging.getLogger("workflow_blocks").setLevel(logging.INFO)  # which runtime loads a model
    for name, folder in (
        ("MODEL_CACHE_DIR", model_cache),
        ("WORKFLOW_BLOCKS_WRITE_DIRECTORY", write_directory),
    ):
        if folder is not None:
            os.environ[name] = str(folder.resolve())
    with exit_with_message(ServerError, RuntimeChoiceError):
        use_plugin_settings()
        serve_until_stopped(host, port)
