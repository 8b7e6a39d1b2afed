"""Finds the images and videos to run a workflow over."""

import os
from pathlib import Path

from workflow_blocks.running.errors import RunError

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"),
    *(".jp2", ".pbm", ".pgm", ".ppm", ".pnm"),
}
VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"}
SAMPLE_IMAGES = Path(__file__).parents[1] / "sample_images"


def find_files(source: Path) -> list[Path]:
    """Finds the images and videos in a folder, sorted by name; a single file is taken as it is.

    Raises:
        RunError: there are none.
    """
    try:
        if source.is_file():
            return [source]
        if not source.exists():
            raise RunError(f"{shown(source)} does not exist; give a folder, an image or a video as --input")
        if not source.is_dir():
            raise RunError(f"{shown(source)} is neither a folder nor a file")
        files = sorted(path for path in source.iterdir() if _why_not(path) is None)
    except OSError as error:
        raise RunError(f"{shown(source)} cannot be read: {error.strerror}") from error
    if not files:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise RunError(f"no image or video ({suffixes}) in {shown(source)}")
    return files


def skipped_files(source: Path) -> dict[Path, str]:
    """Why `find_files` leaves out the other files and folders in a folder, sorted by name."""
    if not source.is_dir():
        return {}
    return {path: reason for path in sorted(source.iterdir()) if (reason := _why_not(path))}


def shown(path: Path) -> str:
    """A path for messages and tables: what is not printable, or not UTF-8, is written as an escape."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _why_not(path: Path) -> str | None:
    """Why a file of the folder is not processed."""
    try:
        if path.is_dir():
            return "folder"
        if path.name.startswith("._"):
            return "macOS's notes on another file"
        if path.suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            return "not the ending of an image or video"
        if path.is_file():
            return None
        return "not a regular file" if path.exists() else "broken link"
    except OSError:
        return None  # reading it fails too, and says why
