"""The command `workflow-blocks serve`."""

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from workflow_blocks.commands.errors import exit_with_message
from workflow_blocks.inference_host.engine import use_plugin_settings
from workflow_blocks.settings_error import SettingsError


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any free one.")] = 9001,
    model_cache: Annotated[
        Path | None,
        typer.Option(help="Where Inference stores models.", show_default=False),
    ] = None,
    write_directory: Annotated[
        Path | None,
        typer.Option(
            help="The only folder that workflows may write to.",
            show_default=False,
        ),
    ] = None,
    read_directory: Annotated[
        Path | None,
        typer.Option(
            help="A folder whose images the playground may read and label.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Starts Inference's server with this plugin, and a page to try prompts: /playground.

    Its settings are environment variables. --model-cache sets MODEL_CACHE_DIR, and --write-directory sets
    WORKFLOW_BLOCKS_WRITE_DIRECTORY.
    """
    from workflow_blocks.running.server import ServerError
    from workflow_blocks.running.server import serve as serve_until_stopped

    logging.getLogger("workflow_blocks").setLevel(logging.INFO)  # which runtime loads a model
    for name, folder in (
        ("MODEL_CACHE_DIR", model_cache),
        ("WORKFLOW_BLOCKS_WRITE_DIRECTORY", write_directory),
    ):
        if folder is not None:
            os.environ[name] = str(folder.resolve())
    with exit_with_message(ServerError, SettingsError):
        use_plugin_settings()
        serve_until_stopped(host, port, read_directory)
