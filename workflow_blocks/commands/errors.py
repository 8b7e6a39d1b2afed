"""How commands end when something is wrong that the user can fix."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def exit_with_message(*errors: type[Exception]) -> Iterator[None]:
    """Prints the message of any of `errors`, without a traceback, and ends the program with exit code 1."""
    try:
        yield
    except errors as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(1) from error
