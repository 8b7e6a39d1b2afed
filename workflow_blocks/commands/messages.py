"""Which messages of other libraries a command shows."""

import logging
import os
import sys
import warnings


def hide_warnings_of_libraries() -> None:
    """Hides warnings about optional models and deprecations, which users of a command cannot act on.

    It changes the whole process, so only commands may call it. Errors and this package's warnings are shown.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.WARNING)  # before another library configures it to show more
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
