"""The records of a dataset's images, in a database beside its files.

The records are the truth: a dataset's files are written from them. So writers in several processes agree on
class and image ids, and a change that is recorded can be completed after its writer was killed.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_blocks.datasets.atomic_files import write_temporary
from workflow_blocks.datasets.details import Detail, detail_from_json
from workflow_blocks.datasets.errors import DatasetError

__all__ = ["Box", "DatasetError", "ImageRecord", "Records"]

Box = tuple[float, float, float, float]

_SCHEMA_VERSION = 1
_TABLES = (
    "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS classes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE IF NOT EXISTS images (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        content TEXT NOT NULL UNIQUE,
        split TEXT NOT NULL,
        file_name TEXT NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        boxes TEXT NOT NULL,
        class_ids TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS images_of_split ON images (split, id)",
    "CREATE INDEX IF NOT EXISTS images_by_name ON images (file_name)",
    "ALTER TABLE images ADD COLUMN source_name TEXT NOT NULL DEFAULT ''",
    # What `file_changes` has still to do, in this order.
    """CREATE TABLE file_changes (
        id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE, staged TEXT
    )""",
    # What `coco_file` writes.
    """CREATE TABLE coco_texts (
        image_id INTEGER PRIMARY KEY, split TEXT NOT NULL, image TEXT NOT NULL, annotations TEXT NOT NULL
    )""",
    "CREATE INDEX coco_texts_of_split ON coco_texts (split, image_id)",
    "CREATE TABLE coco_splits (split TEXT PRIMARY KEY, last_written TEXT NOT NULL, changed_at REAL)",
)
_COLUMNS = "id, content, split, file_name, width, height, boxes, class_ids, source_name, details, caption"
# Columns that datasets get when they are opened, if they were begun without.
_LATER_COLUMNS = {"details": "TEXT NOT NULL DEFAULT '[]'", "caption": "TEXT NOT NULL DEFAULT ''"}


@dataclass(frozen=True)
class ImageRecord:
    """One image of a dataset.

    `boxes` are corners (x_min, y_min, x_max, y_max) in its pixels; `source_name` is the name under which the
    image came, or empty; `details` are those of each box, or empty where nothing more is known; `caption` is
    a text about the image, or empty.
    """

    id: int
    content: str
    split: str
    file_name: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    class_ids: tuple[int, ...]
    source_name: str = ""
    details: tuple[Detail, ...] = ()
    caption: str = ""


def separate_from_links(path: Path, staged: Path) -> None:
    """Gives records a file of their own if a copy that was made of hard links (`cp -al`) shares it.

    Raises:
        DatasetError: another writer has the records open, or they cannot be used.
        OSError: the file cannot be written.
    """
    if not path.exists() or path.stat().st_nlink == 1:
        return
    shared = Records(path)
    try:
        shared.execute("PRAGMA journal_mode=DELETE")  # now all is in one file, and nobody else has it open
    finally:
        shared.close()
    write_temporary(staged, path.read_bytes()).replace(path)


class Records:
    """The database of one dataset. The caller must hold the dataset's lock."""

    def __init__(self, path: Path) -> None:
        """Opens the database, or creates it.

        Raises:
            DatasetError: it is damaged, or cannot be written.
        """
        self._path = path
        with self._explained():
            self.connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            # If a writer is killed, its change is kept completely or not at all.
            self.execute("PRAGMA journal_mode=WAL")
            self.execute("PRAGMA synchronous=NORMAL")
            if self.version() < _SCHEMA_VERSION:
                self._create_tables()
            found = {name for _, name, *_ in self.execute("PRAGMA table_info(images)")}
            for name in _LATER_COLUMNS.keys() - found:
                self.execute(f"ALTER TABLE images ADD COLUMN {name} {_LATER_COLUMNS[name]}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.connection.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction: all changes inside are kept, or none.

        Raises:
            DatasetError: the database is damaged, or cannot be written.
        """
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # SQLite ends it by itself if the disk is full
                self.execute("ROLLBACK")
            raise

    def execute(self, statement: str, *values: object) -> list[Any]:
        """The rows that a statement gives.

        Raises:
            DatasetError: the database is damaged, or cannot be written.
        """
        with self._explained():
            return self.connection.execute(statement, values).fetchall()

    def setting(self, name: str) -> str | None:
        rows = self.execute("SELECT value FROM settings WHERE name = ?", name)
        return rows[0][0] if rows else None

    def set_setting(self, name: str, value: str) -> None:
        self.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value)

    def class_names(self) -> list[str]:
        return [name for (name,) in self.execute("SELECT name FROM classes ORDER BY id")]

    def add_classes(self, names: Sequence[str]) -> list[str]:
        """Adds the names that are new, in their order, and returns all names."""
        known = self.class_names()
        for name in dict.fromkeys(names):
            if name not in known:
                self.execute("INSERT INTO classes VALUES (?, ?)", len(known), name)
                known.append(name)
        return known

    def find(self, content: str) -> ImageRecord | None:
        """The image of the given content."""
        rows = self.execute(f"SELECT {_COLUMNS} FROM images WHERE content = ?", content)
        return self._from_row(rows[0]) if rows else None

    def has_images(self, split: str) -> bool:
        return bool(self.execute("SELECT 1 FROM images WHERE split = ? LIMIT 1", split))

    def is_taken(self, stem: str, content: str) -> bool:
        """Whether an image of other content has a file of that name, with any suffix."""
        names = (f"{stem}.jpg", f"{stem}.png")
        statement = "SELECT 1 FROM images WHERE file_name IN (?, ?) AND content != ? LIMIT 1"
        return bool(self.execute(statement, *names, content))

    def of_split(self, split: str) -> Iterator[ImageRecord]:
        """All images of a split, the oldest first."""
        rows = self.execute(f"SELECT {_COLUMNS} FROM images WHERE split = ? ORDER BY id", split)
        return map(self._from_row, rows)

    def put(self, record: ImageRecord) -> ImageRecord:
        """Adds a record, or replaces that of the same content, which keeps its id."""
        self.execute(
            "INSERT INTO images (content, split, file_name, width, height, boxes, class_ids, source_name, "
            "details, caption) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (content) DO UPDATE SET "
            "split = excluded.split, file_name = excluded.file_name, boxes = excluded.boxes, "
            "class_ids = excluded.class_ids, source_name = excluded.source_name, details = excluded.details, "
            "caption = excluded.caption",
            record.content,
            record.split,
            record.file_name,
            record.width,
            record.height,
            json.dumps(record.boxes),
            json.dumps(record.class_ids),
            record.source_name,
            json.dumps([detail.as_json() for detail in record.details]),
            record.caption,
        )
        stored = self.find(record.content)
        assert stored is not None
        return stored

    def remove(self, content: str) -> None:
        self.execute("DELETE FROM images WHERE content = ?", content)

    def version(self) -> int:
        version: int = self.execute("PRAGMA user_version")[0][0]
        return version

    def _create_tables(self) -> None:
        with self.change():
            for statement in _TABLES:
                self.execute(statement)
            self.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _from_row(self, row: tuple[Any, ...]) -> ImageRecord:
        (
            image_id,
            content,
            split,
            file_name,
            width,
            height,
            boxes,
            class_ids,
            source_name,
            details,
            caption,
        ) = row
        try:
            corners = tuple((x_min, y_min, x_max, y_max) for x_min, y_min, x_max, y_max in json.loads(boxes))
            ids = tuple(json.loads(class_ids))
            known = tuple(map(detail_from_json, json.loads(details)))
        except (ValueError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error
        return ImageRecord(
            image_id, content, split, file_name, width, height, corners, ids, source_name, known, caption
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # a full disk, no permission
            raise DatasetError(f"the records in {self._path} cannot be used: {error}") from error
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DatasetError:
        return DatasetError(
            f"the records in {self._path} are damaged ({error}); put back a copy of the dataset, or choose "
            "another target directory"
        )
