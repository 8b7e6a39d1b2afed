"""Image files of a dataset: their names and their bytes."""

import io
import re
import unicodedata
from pathlib import PurePath

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from workflow_blocks.datasets.errors import DatasetError

MAX_JPEG_SIDE = 65_500
_PIL_FORMATS = {".jpg": "JPEG", ".png": "PNG"}
_MAX_STEM_BYTES = 120
_SHORT_HASH = 12


def file_stem(source_name: str, content: str) -> str:
    """The file name, without suffix, of an image that came under a name; `content` is its hash."""
    stem = _safe_stem(source_name)
    return f"{stem}-{content[:_SHORT_HASH]}" if stem else content


def _safe_stem(source_name: str) -> str:
    stem = PurePath(source_name.replace("\\", "/")).stem
    stem = unicodedata.normalize("NFC", stem)
    # Letters, marks and digits of all scripts.
    stem = "".join(c if c in "-_. " or unicodedata.category(c)[0] in "LMN" else "_" for c in stem)
    stem = stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
    return re.sub(r"\s+", " ", stem).strip(" .")


def check_size(image_bgr: npt.NDArray[np.uint8], suffix: str) -> None:
    """Checks whether a format can hold an image, uint8 (H, W, 3).

    Raises:
        DatasetError: it cannot.
    """
    height, width = image_bgr.shape[:2]
    if suffix == ".jpg" and max(height, width) > MAX_JPEG_SIDE:
        raise DatasetError(
            f"the image has {width} x {height} pixels, and JPEG holds at most {MAX_JPEG_SIDE} on a side; "
            "set `image_format` to 'png'"
        )


def encode(
    image_bgr: npt.NDArray[np.uint8], suffix: str, jpeg_quality: int, original: bytes | None = None
) -> bytes:
    """The bytes of an image file.

    Args:
        image_bgr: uint8 (H, W, 3).
        suffix: `.jpg` or `.png`.
        jpeg_quality: 1 to 100.
        original: the file that the image came from. It is returned if every reader sees exactly this image
            in it.

    Raises:
        DatasetError: the format cannot hold the image.
    """
    if original is not None and _shows_exactly(original, image_bgr, suffix):
        return original
    check_size(image_bgr, suffix)
    try:
        is_written, encoded = cv2.imencode(suffix, image_bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    except cv2.error as error:
        raise DatasetError(f"the image cannot be written as {suffix}: {error}") from error
    if not is_written:
        raise DatasetError(f"the image cannot be written as {suffix}")
    return encoded.tobytes()


def _shows_exactly(original: bytes, image_bgr: npt.NDArray[np.uint8], suffix: str) -> bool:
    try:
        with Image.open(io.BytesIO(original), formats=[_PIL_FORMATS[suffix]]) as header:
            is_plain = header.mode in ("L", "RGB") and "transparency" not in header.info
            is_upright = header.getexif().get(0x0112, 1) == 1
            is_single = getattr(header, "n_frames", 1) == 1
            if header.size != image_bgr.shape[1::-1] or not (is_plain and is_upright and is_single):
                return False
        decoded = cv2.imdecode(np.frombuffer(original, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, cv2.error):
        return False
    return decoded is not None and np.array_equal(decoded, image_bgr)
