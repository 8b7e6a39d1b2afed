"""What goes wrong in a run."""


class RunError(Exception):
    """A run cannot start; the message says what to change."""


class FileError(Exception):
    """One file cannot be worked on; the others can."""
