"""Text in CSV files."""


def with_line_feeds(value: object) -> object:
    """A text whose lines all end in line feeds, which are quoted; a carriage return would break the row."""
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value
