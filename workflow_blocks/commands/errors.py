"""How commands end when something is wrong that the user can fix."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from workflow_blocks.installation import (
    CLUSTER_MISSING,
    INFERENCE_MISSING,
    is_cluster_missing,
    is_inference_missing,
)


@contextmanager
def exit_with_message(*errors: type[Exception]) -> Iterator[None]:
    """Prints the message of any of `errors`, without a traceback, and ends the program with exit code 1.

    The same holds if Inference or Ray is needed and not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if is_cluster_missing(error):
            _exit(CLUSTER_MISSING, error)
        if not is_inference_missing(error):
            raise
        _exit(INFERENCE_MISSING, error)
    except errors as error:
        _exit(str(error), error)


def _exit(message: str, cause: Exception) -> NoReturn:
    typer.secho(f"Error: {message}", fg=typer.colors.RED, err=True)
    raise typer.Exit(1) from cause
