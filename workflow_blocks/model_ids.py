"""Which names are ids of a Moondream2: they name no folder, even if there is one of that name."""

import re

_ID = re.compile(r"moondream2(-demo|/[\w-][\w.-]*)?", re.ASCII)


def is_moondream2_id(name: object) -> bool:
    """Whether a name is `moondream2`, `moondream2/...` or `moondream2-demo`."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None
