"""The records of a dataset's images, in a database beside its files.

A dataset's files are written from these records, so that writers in several processes agree on class and
image ids, and so that a change can be completed after its writer was killed.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv

Box = tuple[float, float, float, float]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS classes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL UNIQUE,
    split TEXT NOT NULL,
    file_name TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    boxes TEXT NOT NULL,
    class_ids TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS images_of_split ON images (split, id);
"""


class DatasetError(Exception):
    """Input does not fit the dataset; the message names the input and how to fix it."""


@dataclass(frozen=True)
class ImageRecord:
    """One image of a dataset; `boxes` are corners (x_min, y_min, x_max, y_max) in its pixels."""

    id: int
    content: str
    split: str
    file_name: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    class_ids: tuple[int, ...]

    @property
    def detections(self) -> sv.Detections:
        return sv.Detections(
            xyxy=np.array(self.boxes, dtype=np.float64).reshape(-1, 4),
            class_id=np.array(self.class_ids, dtype=int),
        )


class Records:
    """The database of one dataset. The caller must hold the dataset's lock."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Readers do not wait for writers. If a writer is killed, its change is kept completely or not at all.
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.executescript(_SCHEMA)

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction: all changes inside are kept, or none."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def setting(self, name: str) -> str | None:
        row = self.connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_setting(self, name: str, value: str) -> None:
        self.connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def class_names(self) -> list[str]:
        return [name for (name,) in self.connection.execute("SELECT name FROM classes ORDER BY id")]

    def add_classes(self, names: Sequence[str]) -> list[str]:
        """Adds the names that are new, in their order, and returns all names."""
        known = self.class_names()
        for name in dict.fromkeys(names):
            if name not in known:
                self.connection.execute("INSERT INTO classes VALUES (?, ?)", (len(known), name))
                known.append(name)
        return known

    def find(self, content: str) -> ImageRecord | None:
        """The image of the given content."""
        row = self.connection.execute("SELECT * FROM images WHERE content = ?", (content,)).fetchone()
        return _from_row(row) if row else None

    def of_split(self, split: str) -> Iterator[ImageRecord]:
        """All images of a split, the oldest first."""
        rows = self.connection.execute("SELECT * FROM images WHERE split = ? ORDER BY id", (split,))
        return map(_from_row, rows)

    def put(self, record: ImageRecord) -> ImageRecord:
        """Adds a record, or replaces that of the same content, which keeps its id."""
        values = (
            record.content,
            record.split,
            record.file_name,
            record.width,
            record.height,
            json.dumps(record.boxes),
            json.dumps(record.class_ids),
        )
        self.connection.execute(
            "INSERT INTO images (content, split, file_name, width, height, boxes, class_ids) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (content) DO UPDATE SET split = excluded.split, "
            "file_name = excluded.file_name, boxes = excluded.boxes, class_ids = excluded.class_ids",
            values,
        )
        stored = self.find(record.content)
        assert stored is not None
        return stored

    def remove(self, content: str) -> None:
        self.connection.execute("DELETE FROM images WHERE content = ?", (content,))


def _from_row(row: tuple[Any, ...]) -> ImageRecord:
    image_id, content, split, file_name, width, height, boxes, class_ids = row
    corners = tuple((x_min, y_min, x_max, y_max) for x_min, y_min, x_max, y_max in json.loads(boxes))
    return ImageRecord(
        image_id, content, split, file_name, width, height, corners, tuple(json.loads(class_ids))
    )
