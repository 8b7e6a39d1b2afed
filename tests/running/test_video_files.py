"""Videos that end early."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from workflow_blocks.running.video_files import is_cut_off

CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "XVID", ".webm": "VP80"}


def write_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODECS[path.suffix]), 10, (64, 48))
    assert writer.isOpened()
    for level in range(20):
        writer.write(np.full((48, 64, 3), level * 10, np.uint8))
    writer.release()
    return path


def with_index_first(path: Path) -> Path:
    """An MP4 file as streaming sites write it: OpenCV opens it although its end is missing."""
    content, boxes, start = path.read_bytes(), {}, 0
    while start < len(content):
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        boxes[kind] = bytearray(content[start : start + length])
        start += length
    index = boxes.pop(b"moov")
    table = index.index(b"stco") + 8
    for place in range(table + 4, table + 4 + 4 * struct.unpack(">I", index[table : table + 4])[0], 4):
        (offset,) = struct.unpack(">I", index[place : place + 4])
        index[place : place + 4] = struct.pack(">I", offset + len(index))
    path.write_bytes(b"".join([boxes.pop(b"ftyp"), index, *boxes.values()]))
    return path


def n_frames(path):
    video, count = cv2.VideoCapture(str(path)), 0
    while video.grab():
        count += 1
    return count


@pytest.fixture(params=[*CODECS, ".mp4, index first"])
def video(request, tmp_path):
    suffix, _, variant = request.param.partition(", ")
    path = write_video(tmp_path / f"video{suffix}")
    return with_index_first(path) if variant else path


def test_a_complete_video_is_not_cut_off(video):
    assert n_frames(video) == 20
    assert not is_cut_off(video)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_part_of_a_video_is_cut_off(video, share):
    content = video.read_bytes()
    video.write_bytes(content[: int(len(content) * share)])

    assert is_cut_off(video)


def test_bytes_after_a_video_do_not_matter(video):
    video.write_bytes(video.read_bytes() + b"\xff\xff\xff\xffmore" * 9)

    assert not is_cut_off(video)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\x1a\x45\xdf\xa3", b"no video", b"\0" * 100])
def test_other_files_say_nothing_about_their_length(tmp_path, content):
    (tmp_path / "file.mp4").write_bytes(content)

    assert not is_cut_off(tmp_path / "file.mp4")
