"""The images below the folder of `serve --read-directory`. Links that lead out of it are not followed."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from workflow_blocks.running.files import IMAGE_SUFFIXES

MAX_LISTED = 10_000


class FolderError(Exception):
    """A path below the folder cannot be read; the message says why."""


@dataclass(frozen=True)
class Listing:
    """Names in a folder, sorted. `skipped` counts what is neither a folder nor an image, or leads outside."""

    folders: list[str]
    images: list[str]
    skipped: int
    is_cut: bool


class ReadDirectory:
    """A folder of this machine whose images the playground may read."""

    def __init__(self, root: Path) -> None:
        """Raises `FolderError` if there is no such folder."""
        try:
            self._root = root.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise FolderError(f"{root} cannot be read: {error}") from error
        if not self._root.is_dir():
            raise FolderError(f"{root} is not a folder")

    @property
    def name(self) -> str:
        return self._root.name or str(self._root)

    def list(self, relative: str) -> Listing:
        """The folders and images in a folder below the root.

        Raises:
            FolderError: there is no such folder.
        """
        folder = self._inside(relative)
        folders: list[str] = []
        images: list[str] = []
        skipped = 0
        try:
            names = sorted(path.name for path in folder.iterdir())
        except OSError as error:
            raise FolderError(f"{relative or self.name}: {error.strerror}") from error
        for name in names:
            kind = self._kind(folder / name)
            if kind is None:
                skipped += 1
            else:
                (folders if kind == "folder" else images).append(name)
        is_cut = max(len(folders), len(images)) > MAX_LISTED
        return Listing(folders[:MAX_LISTED], images[:MAX_LISTED], skipped, is_cut)

    def read(self, relative: str, max_bytes: int) -> bytes:
        """The content of an image file below the root.

        Raises:
            FolderError: there is no such image, or it is larger than `max_bytes`.
        """
        path = self._inside(relative)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise FolderError(f"{relative}: not the ending of an image")
        try:
            with open(self._open(path), "rb") as file:  # noqa: PTH123 - it is a descriptor
                if os.fstat(file.fileno()).st_size > max_bytes:
                    raise FolderError(f"{relative}: larger than {max_bytes:,} bytes")
                return file.read(max_bytes)
        except OSError as error:
            raise FolderError(f"{relative}: {error.strerror}") from error

    def _kind(self, path: Path) -> str | None:
        try:
            path.name.encode()
            self._inside(str(path.relative_to(self._root)))
            if path.is_dir():
                return None if path.name.startswith(".") else "folder"
            is_image = path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("._")
            return "image" if is_image and path.is_file() else None
        except (FolderError, OSError, UnicodeEncodeError):
            return None

    def _inside(self, relative: str) -> Path:
        """The path without links, if it is below the root."""
        try:
            path = (self._root / relative).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise FolderError(f"{relative!r} does not exist in this server's folder") from error
        if not path.is_relative_to(self._root):
            raise FolderError(f"{relative!r} is outside of this server's folder")
        return path

    def _open(self, path: Path) -> int:
        """Opens a path without links, folder by folder, so that none can become a link meanwhile."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        current = os.open(self._root, flags | os.O_DIRECTORY)
        *folders, name = path.relative_to(self._root).parts
        try:
            for folder in folders:
                below = os.open(folder, flags | os.O_DIRECTORY, dir_fd=current)
                os.close(current)
                current = below
            file = os.open(name, flags | os.O_NONBLOCK, dir_fd=current)  # a pipe must not block
        finally:
            os.close(current)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise FolderError(f"{name}: not a regular file")
        return file
