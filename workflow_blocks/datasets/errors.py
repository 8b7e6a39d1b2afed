"""Errors of datasets that their users can fix."""


class DatasetError(Exception):
    """Input does not fit the dataset, or the dataset is damaged; the message says what to do."""
