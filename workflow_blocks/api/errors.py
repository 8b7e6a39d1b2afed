"""How the functions say which argument cannot be used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# How messages that are written for the commands name what are arguments here.
_ARGUMENTS = {
    "--output": "`output`",
    "--input": "`images`",
    "--again": "`again=True`",
    "--prompts": "`prompts`",
}


class ArgumentError(ValueError):
    """An argument cannot be used; the message names it and says what to give."""


@contextmanager
def naming(argument: str, arguments_of_parameters: Mapping[str, str] | None = None) -> Iterator[None]:
    """Raises what the package raises for input that cannot be used as an `ArgumentError`.

    Args:
        argument: what is named if the message names no argument.
        arguments_of_parameters: which arguments the workflow's parameters come from; by default,
            `parameters`.
    """
    from workflow_blocks.datasets.errors import DatasetError
    from workflow_blocks.running.errors import RunError
    from workflow_blocks.running.parameters import ParameterError

    try:
        yield
    except ParameterError as error:
        text = str(error)
        for parameter, name in (arguments_of_parameters or {}).items():
            text = text.replace(f"`{parameter}`", f"`{name}`")
        raise ArgumentError(f"`parameters`: {text}" if arguments_of_parameters is None else text) from error
    except (RunError, DatasetError) as error:
        text = str(error)
        for option, name in _ARGUMENTS.items():
            text = text.replace(option, name)
        if text.startswith(("the workflow ", "no output of the workflow")):
            argument = "workflow"
        names_it = f"`{argument}`" in text
        raise ArgumentError(text if names_it else f"`{argument}`: {text}") from error
