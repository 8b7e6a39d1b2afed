"""The images and videos that a workflow is run over."""

from pathlib import Path

from workflow_blocks.running.errors import RunError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm"}
SAMPLE_IMAGES = Path(__file__).parents[1] / "sample_images"


def find_files(source: Path) -> list[Path]:
    """The images and videos of a folder, by name; or one file.

    Raises:
        RunError: there are none.
    """
    return (
        [source] if source.is_file() else _files_in(source, "image or video", IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    )


def find_images(folder: Path) -> list[Path]:
    """The image files of a folder, by name.

    Raises:
        RunError: there are none.
    """
    return _files_in(folder, "image", IMAGE_SUFFIXES)


def _files_in(folder: Path, kind: str, suffixes: set[str]) -> list[Path]:
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise RunError(f"no {kind} ({', '.join(sorted(suffixes))}) in {folder}")
    return files
