"""The Pascal VOC annotation of an image."""

import math
from collections.abc import Sequence
from xml.etree import ElementTree

from workflow_blocks.datasets.class_names import is_writable
from workflow_blocks.datasets.records import Box, ImageRecord


def pascal_voc_xml(record: ImageRecord, class_names: Sequence[str]) -> bytes:
    """The XML document with an image's boxes, in whole pixels counted from 1, both ends included."""
    root = ElementTree.Element("annotation")
    _add(root, "folder", record.split)
    _add(root, "filename", record.file_name)
    source = _add(root, "source")
    _add(source, "database", "moondream2-workflow-blocks")
    if record.source_name:
        _add(source, "image", "".join(c if is_writable(c) else "_" for c in record.source_name))
    size = _add(root, "size")
    for name, value in (("width", record.width), ("height", record.height), ("depth", 3)):
        _add(size, name, value)
    _add(root, "segmented", 0)
    for box, class_id in zip(record.boxes, record.class_ids, strict=True):
        _add_object(root, class_names[class_id], pixel_corners(box, record.width, record.height))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def pixel_corners(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The first and the last pixel that a box touches in each direction, counted from 1; at least one."""
    x_min, x_max = _pixels(box[0], box[2], width)
    y_min, y_max = _pixels(box[1], box[3], height)
    return x_min, y_min, x_max, y_max


def _pixels(start: float, end: float, size: int) -> tuple[int, int]:
    first = min(max(math.floor(start) + 1, 1), size)
    return first, min(max(math.ceil(end), first), size)


def _add_object(root: ElementTree.Element, name: str, corners: tuple[int, int, int, int]) -> None:
    element = _add(root, "object")
    for field, value in (("name", name), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
        _add(element, field, value)
    box = _add(element, "bndbox")
    for field, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
        _add(box, field, value)


def _add(parent: ElementTree.Element, name: str, value: str | int | None = None) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    element.text = None if value is None else str(value)
    return element
