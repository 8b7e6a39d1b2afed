"""Tells whether a video file is complete, from the sizes that its container states."""

from pathlib import Path
from typing import BinaryIO

_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"


def is_cut_off(path: Path) -> bool:
    """Whether a file is shorter than its container says: MP4 and MOV, AVI, MKV and WebM; False for others.

    OpenCV plays what there is of such a file without an error.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        start = file.read(12)
        if start.startswith(b"RIFF"):
            return _end_of_riff(file, size) > size
        if start.startswith(_EBML):
            return _end_of_matroska(file) > size
        return start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") and _end_of_mp4(file, size) > size


def _end_of_riff(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(8)
        if header[:4] != b"RIFF" or len(header) < 8:
            break  # something after the video
        end += 8 + int.from_bytes(header[4:8], "little")
    return end


def _end_of_mp4(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or (end + length > size and kind not in (b"mdat", b"moov", b"moof")):
            break  # the last box, up to the end of the file; or something after the video
        end += length
    return end


def _end_of_matroska(file: BinaryIO) -> int:
    """0 if the length is not stated, as in a recording of a live stream."""
    file.seek(len(_EBML))
    header = _variable_length(file)
    file.seek(header or 0, 1)
    if header is None or file.read(len(_SEGMENT)) != _SEGMENT:
        return 0
    length = _variable_length(file)
    return 0 if length is None else file.tell() + length


def _variable_length(file: BinaryIO) -> int | None:
    """An EBML number: the leading zero bits of its first byte say how many bytes follow."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    n_more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0x7F >> n_more)]) + file.read(n_more), "big")
    return None if value == (1 << 7 * (n_more + 1)) - 1 else value
