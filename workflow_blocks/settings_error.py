"""The error of a server's own settings."""


class SettingsError(ValueError):
    """An environment variable cannot be used as it is; the message names it and says how to fix it."""
