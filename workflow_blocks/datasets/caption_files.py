"""Captions beside the images: `metadata.jsonl`, as Hugging Face's `imagefolder` reads it.

A split has the file from its first caption on; an image without a caption then has an empty text. Like the
COCO files, it is written whole from the records, at once while it is small, and later if not: see
`late_writes`. The records have the checksum of what was written, so a file that somebody edited is not
replaced.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from workflow_blocks.datasets.coco_file import MAX_BYTES_AT_ONCE, state_of
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.file_changes import DatasetFolder
from workflow_blocks.datasets.records import ImageRecord, Records

_TABLE = (
    "CREATE TABLE IF NOT EXISTS caption_files (split TEXT PRIMARY KEY, written TEXT NOT NULL, "
    "digest TEXT NOT NULL, changed_at REAL)"
)


class CaptionFiles:
    """The caption files of a dataset. The caller must hold the dataset's lock."""

    def __init__(self, folder: DatasetFolder, records: Records, image_folder: str) -> None:
        """`image_folder` is where the images of a split are in its folder, such as "images/", or ""."""
        self._folder = folder
        self._records = records
        self._image_folder = image_folder
        records.execute(_TABLE)
        for split in self._known():
            if not folder.is_linked(self._name(split)) and not self._path(split).exists():
                self._mark_changed(split)

    def change(self, old: ImageRecord | None, new: ImageRecord | None) -> None:
        """Records what changes in the files. Called inside `Records.change`.

        Raises:
            DatasetError: a file that must change was edited, or cannot be written.
        """
        changed = {record.split for record in (old, new) if record is not None} & self._known()
        if new is not None and new.caption:
            changed.add(new.split)
        for split in sorted(changed):
            self._folder.make_writable(self._name(split))
            self._check_unedited(split)
            self._mark_changed(split)

    def changed_at(self, without: Iterable[str] = ()) -> float | None:
        """When the first change was recorded that is not in the files yet, in seconds since 1970.

        Args:
            without: files that are in place already.
        """
        rows = self._records.execute(
            "SELECT split, changed_at FROM caption_files WHERE changed_at IS NOT NULL"
        )
        times = [changed_at for split, changed_at in rows if self._name(split) not in without]
        return min(times, default=None)

    @property
    def is_quick(self) -> bool:
        """Whether the files that changed are small enough to be written at once."""
        paths = map(self._path, self._changed())
        return sum(path.stat().st_size for path in paths if path.exists()) <= MAX_BYTES_AT_ONCE

    def files(self) -> dict[str, bytes]:
        """The files that changed, by their place in the dataset's folder. Called inside `Records.change`.

        Raises:
            DatasetError: a file was edited.
        """
        files = {}
        for split in self._changed():
            self._check_unedited(split)
            content = self._content(split)
            digest = hashlib.sha256(content).hexdigest()
            self._records.execute("UPDATE caption_files SET digest = ? WHERE split = ?", digest, split)
            files[self._name(split)] = content
        return files

    def have_been_written(self, names: Iterable[str]) -> None:
        """Notes which files are in place with all changes; their checksums need not be computed again."""
        for split in self._known():
            if self._name(split) in names:
                self._records.execute(
                    "UPDATE caption_files SET written = ?, changed_at = NULL WHERE split = ?",
                    state_of(self._path(split)),
                    split,
                )

    def _content(self, split: str) -> bytes:
        rows = self._records.execute(
            "SELECT file_name, caption FROM images WHERE split = ? ORDER BY id", split
        )
        lines = (json.dumps({"file_name": name, "text": text}, ensure_ascii=False) for name, text in rows)
        return "".join(f"{line}\n" for line in lines).encode()

    def _check_unedited(self, split: str) -> None:
        path = self._path(split)
        if not path.exists():
            return
        rows = self._records.execute("SELECT written, digest FROM caption_files WHERE split = ?", split)
        written, digest = rows[0] if rows else ("", "")
        if written != state_of(path) and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise DatasetError(
                f"{path} was edited since it was written; move it away and it is written again without the "
                "edits, or choose another target directory"
            )

    def _mark_changed(self, split: str) -> None:
        self._records.execute(
            "INSERT INTO caption_files VALUES (?, '', '', ?) ON CONFLICT (split) DO UPDATE SET "
            "changed_at = coalesce(changed_at, excluded.changed_at)",
            split,
            time.time(),
        )

    def _known(self) -> set[str]:
        """The splits with captions."""
        return {split for (split,) in self._records.execute("SELECT split FROM caption_files")}

    def _changed(self) -> list[str]:
        rows = self._records.execute("SELECT split FROM caption_files WHERE changed_at IS NOT NULL")
        return [split for (split,) in rows]

    def _name(self, split: str) -> str:
        return f"{split}/{self._image_folder}metadata.jsonl"

    def _path(self, split: str) -> Path:
        return self._folder.checked(self._name(split))
