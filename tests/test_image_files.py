"""Image files: complete ones as Inference decodes them, all others refused."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.scenes import image_bgr
from workflow_blocks.image_files import MAX_PIXELS, ImageFileError, decode_image, read_image_file

PICTURE = Image.fromarray(cv2.resize(image_bgr(0), (320, 240))[..., ::-1])


def encoded(format, mode="RGB", **options):
    file = io.BytesIO()
    PICTURE.convert(mode).save(file, format, **options)
    return file.getvalue()


def png_of_size(width, height, rows=b"\0" * 1000):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return encoded("JPEG", exif=exif)


def png_16_bit():
    return cv2.imencode(".png", np.asarray(PICTURE).astype(np.uint16) * 257)[1].tobytes()


FILES = {
    "jpeg": encoded("JPEG"),
    "progressive jpeg": encoded("JPEG", progressive=True),
    "grey jpeg": encoded("JPEG", "L"),
    "cmyk jpeg": encoded("JPEG", "CMYK"),
    "turned jpeg": turned(),
    "png": encoded("PNG"),
    "palette png": encoded("PNG", "P"),
    "alpha png": encoded("PNG", "RGBA"),
    "16-bit png": png_16_bit(),
    "bmp": encoded("BMP"),
    "webp": encoded("WEBP"),
    "lossless webp": encoded("WEBP", lossless=True),
    "tiff": encoded("TIFF"),
    "lzw tiff": encoded("TIFF", compression="tiff_lzw"),
    "jpeg 2000": encoded("JPEG2000"),
    "ppm": encoded("PPM"),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_of_inference(name):
    from inference.core.utils.image_utils import load_image_bgr

    expected = load_image_bgr(io.BytesIO(FILES[name]))
    np.testing.assert_array_equal(decode_image(FILES[name]), expected)


def test_a_gif_gives_its_first_frame():
    first = PICTURE.convert("P")
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[first.rotate(180)])

    np.testing.assert_array_equal(decode_image(file.getvalue()), np.asarray(first.convert("RGB"))[..., ::-1])


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
@pytest.mark.parametrize("name", [*FILES, "gif"])
def test_an_incomplete_file_is_refused(name, share):
    content = FILES.get(name) or encoded("GIF", "P")

    with pytest.raises(ImageFileError):
        decode_image(content[: int(len(content) * share)])


def test_a_damaged_file_is_refused():
    content = bytearray(FILES["png"])
    content[len(content) // 2] ^= 0xFF

    with pytest.raises(ImageFileError, match="damaged or incomplete"):
        decode_image(bytes(content))


@pytest.mark.parametrize("size", [(40_000, 40_000), (20_000, 20_000), (14_000, 13_000), (MAX_PIXELS + 1, 1)])
def test_a_huge_image_is_refused_by_its_header(size, monkeypatch):
    # Without Pillow's own limit, which other packages change.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))

    with pytest.raises(ImageFileError, match="too large"):
        decode_image(png_of_size(*size))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8 no image"])
def test_other_files_are_no_images(content):
    with pytest.raises(ImageFileError, match="not an image"):
        decode_image(content)


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    started = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n%%EOF\n"

    with pytest.raises(ImageFileError, match="not an image"):
        decode_image(postscript)

    assert not started.exists()


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = tmp_path / b"a\xff\xfe.png".decode("utf-8", "surrogateescape")
    path.write_bytes(FILES["png"])

    np.testing.assert_array_equal(read_image_file(path), np.asarray(PICTURE)[..., ::-1])


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(ImageFileError, match="unreadable: No such file"):
        read_image_file(tmp_path / "missing.png")
