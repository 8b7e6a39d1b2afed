"""Changes of several files that are made together, or not at all.

New files are written under temporary names first. Then one transaction records what the change is: in the
dataset's records, and here as a list of files to put in place and to remove. Only then do files change. If
the process dies before the transaction, nothing has changed; if it dies after, the next one completes the
list.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from workflow_blocks.datasets.atomic_files import write_temporary
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.records import Records

# Holds a dataset's records and temporary files; hidden, so that importers ignore it.
HIDDEN_FOLDER = ".dataset"
STAGED_FOLDER = f"{HIDDEN_FOLDER}/staged"


class DatasetFolder:
    """A dataset's folder, in which no file or folder of the dataset may be a link."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = os.path.realpath(path)

    def checked(self, name: str) -> Path:
        """The path of a file or folder of the dataset, by its place in the folder.

        Raises:
            DatasetError: a link leads elsewhere, also if that is in the folder: two splits would share files.
        """
        path = self.path / name
        if self.is_linked(name):
            raise DatasetError(
                f"{path} is a link, or in a folder that is one; put the files themselves there"
            )
        return path

    def is_linked(self, name: str) -> bool:
        return os.path.realpath(self.path / name) != os.path.join(self._root, name)  # noqa: PTH118

    def make_writable(self, name: str) -> Path:
        """The path of a file that can be put in place; its folder is created.

        Raises:
            DatasetError: a link leads elsewhere, or something else than a file is in its place.
            OSError: its folder cannot be written.
        """
        path = self.checked(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise DatasetError(f"{path} is a folder in place of a file; remove it")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(f"{path.parent} cannot be written")
        if path.parent.stat().st_dev != self.checked(STAGED_FOLDER).stat().st_dev:
            raise DatasetError(f"{path.parent} is on another disk than {self.path}; move it there")
        return path


class FileChanges:
    """The files to put in place and to remove. The caller must hold the dataset's lock."""

    def __init__(self, folder: DatasetFolder, records: Records) -> None:
        self._folder = folder
        self._records = records

    def put(self, name: str, content: bytes) -> None:
        """Writes a file that the current transaction puts in place."""
        self._folder.make_writable(name)
        staged = write_temporary(self._folder.checked(STAGED_FOLDER), content)
        self._set(name, staged.name)

    def remove(self, name: str) -> None:
        """Removes a file with the current transaction, if it exists."""
        path = self._folder.checked(name)
        if path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(f"{path.parent} cannot be written")
        self._set(name, None)

    def put_in_place(self) -> list[str]:
        """Puts the recorded files in place, in the order in which they were written, and returns them."""
        rows = self._records.execute(
            "SELECT path, staged FROM file_changes WHERE staged IS NOT NULL ORDER BY id"
        )
        for name, staged in rows:
            source = self._folder.checked(f"{STAGED_FOLDER}/{staged}")
            if source.exists():  # else it is in place, and the writer was killed since
                source.replace(self._folder.make_writable(name))
        return [name for name, _ in rows]

    def remove_files(self) -> list[str]:
        """Removes the recorded files, and returns them."""
        rows = self._records.execute("SELECT path FROM file_changes WHERE staged IS NULL ORDER BY id")
        for (name,) in rows:
            self._folder.checked(name).unlink(missing_ok=True)
        return [name for (name,) in rows]

    def forget(self, names: Iterable[str]) -> None:
        """Records that files were put in place or removed."""
        for name in names:
            self._records.execute("DELETE FROM file_changes WHERE path = ?", name)

    def sweep(self) -> None:
        """Removes temporary files that no recorded change needs; their writer was killed or failed."""
        folder = self._folder.checked(STAGED_FOLDER)
        found = {path.name for path in folder.iterdir()}
        if not found:
            return
        rows = self._records.execute("SELECT staged FROM file_changes WHERE staged IS NOT NULL")
        for name in found - {staged for (staged,) in rows}:
            with contextlib.suppress(OSError):
                (folder / name).unlink()

    def _set(self, name: str, staged: str | None) -> None:
        # A new row, so that the order is that of the calls.
        self._records.execute(
            "INSERT OR REPLACE INTO file_changes (path, staged) VALUES (?, ?)", name, staged
        )
