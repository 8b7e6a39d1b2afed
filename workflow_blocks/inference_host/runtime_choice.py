"""Which runtime serves Moondream2 ids of the provider: `MOONDREAM2_RUNTIME`."""

import os
from typing import Literal, TypeAlias, get_args

from workflow_blocks.settings_error import SettingsError

SETTING = "MOONDREAM2_RUNTIME"

RuntimeChoice: TypeAlias = Literal["auto", "own", "inference"]
MEANINGS: dict[RuntimeChoice, str] = {
    "auto": "this plugin's runtime, or Inference's own class for packages that this plugin cannot read",
    "own": "this plugin's runtime only; no Python code of a package runs",
    "inference": "Inference's own class, as without this plugin",
}


class RuntimeChoiceError(SettingsError):
    """`MOONDREAM2_RUNTIME` has an invalid value; the message names it."""


def chosen_runtime() -> RuntimeChoice:
    """The runtime that the environment chooses; `auto` if the variable is unset or empty.

    Raises:
        RuntimeChoiceError: the variable has another value.
    """
    value = os.environ.get(SETTING) or "auto"
    for choice in get_args(RuntimeChoice):
        if value == choice:
            return choice
    raise RuntimeChoiceError(f"{SETTING}={value!r}: give one of {', '.join(get_args(RuntimeChoice))}")
