"""Which class names a dataset's files can hold."""

import unicodedata

from workflow_blocks.datasets.errors import DatasetError


def check_class_name(name: str) -> None:
    """Refuses a name that some format's files cannot hold.

    Raises:
        DatasetError: the name is empty, or has control characters or lone surrogates.
    """
    if not name or not all(map(is_writable, name)):
        raise DatasetError(
            f"the class name {name!r} cannot be written; give a name without control characters"
        )


def is_writable(character: str) -> bool:
    """Whether the files of all formats can hold a character; XML is the strictest."""
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in "\ufffe\uffff"
