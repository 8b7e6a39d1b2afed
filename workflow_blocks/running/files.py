"""Finds the images and videos to run a workflow over."""

from pathlib import Path

from workflow_blocks.running.errors import RunError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm"}
SAMPLE_IMAGES = Path(__file__).parents[1] / "sample_images"


def find_files(source: Path) -> list[Path]:
    """Finds the images and videos in a folder, sorted by name; a single file is taken as it is.

    Raises:
        RunError: there are none.
    """
    if source.is_file():
        return [source]
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    files = sorted(path for path in source.glob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise RunError(f"no image or video ({', '.join(sorted(suffixes))}) in {source}")
    return files
