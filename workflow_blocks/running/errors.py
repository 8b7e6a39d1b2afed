"""What goes wrong in a run."""


class RunError(Exception):
    """A run cannot start; the message says how to fix it."""


class FileError(Exception):
    """One file cannot be processed; the others can."""
