"""Decodes image files: the whole image or an error, with the same pixels as Inference gives."""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow's own limit against small files that claim a huge image. Decoded, this is half a gigabyte.
MAX_PIXELS = 178_956_970
# No encoded image within that limit is larger: four channels of 16 bits, uncompressed.
MAX_BYTES = 8 * MAX_PIXELS
# The formats of `IMAGE_SUFFIXES`, as Pillow names them. Of others it starts programs: Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "JPEG2000", "PPM")
# What OpenCV can decode only since version 5.
_DECODED_BY_PILLOW = ("GIF",)


class ImageFileError(Exception):
    """A file cannot be decoded as an image; the message says why."""


def read_image_file(path: Path) -> npt.NDArray[np.uint8]:
    """Reads and decodes a file; see `decode_image`. OpenCV never sees the path: some names crash it.

    Raises:
        ImageFileError: the file cannot be read, or not decoded.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ImageFileError("no regular file")
        if path.stat().st_size > MAX_BYTES:
            raise ImageFileError(f"larger than {MAX_BYTES:,} bytes")
        return decode_image(path.read_bytes())
    except OSError as error:
        raise ImageFileError(f"unreadable: {error.strerror}") from error


def decode_image(content: bytes) -> npt.NDArray[np.uint8]:
    """Decodes an image file's content; of several frames or pages, the first.

    The size in the header is checked before anything is decoded. Pillow then decodes the image only to check
    that it is complete, because OpenCV returns what there is of some incomplete files.

    Returns:
        BGR pixels (H, W, 3) as OpenCV decodes them: turned by EXIF, without alpha.

    Raises:
        ImageFileError: it is not an image, is too large, or is damaged or incomplete.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about large images and odd metadata
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ImageFileError(
                        f"too large: {picture.width} x {picture.height} pixels; the limit is {MAX_PIXELS:,}"
                    )
                picture.load()
                image = _decode(content, picture)
        except Image.DecompressionBombError as error:
            raise ImageFileError(f"too large; the limit is {MAX_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            raise ImageFileError("not an image that OpenCV can read, or its start is damaged") from error
        except ImageFileError:
            raise
        except Exception as error:  # Pillow's decoders raise many types for damaged files
            raise ImageFileError(f"damaged or incomplete: {error or type(error).__name__}") from error
    if image is None:
        raise ImageFileError("not an image that OpenCV can read, or damaged")
    return image


def _decode(content: bytes, picture: Image.Image) -> npt.NDArray[np.uint8] | None:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None and picture.format in _DECODED_BY_PILLOW:
        rgb = ImageOps.exif_transpose(picture).convert("RGB")
        return np.ascontiguousarray(np.asarray(rgb, np.uint8)[..., ::-1])
    return None if image is None else np.asarray(image, np.uint8)
