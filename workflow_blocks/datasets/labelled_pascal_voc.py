"""Reads labelled images from Pascal VOC's XML files."""

import math
from pathlib import Path
from xml.etree import ElementTree

from workflow_blocks.datasets.labelled_images import (
    Label,
    LabelledImages,
    add_image,
    class_ids_of,
    class_name_problem,
    size_of_image,
)

# A file of a hundred thousand objects has 40 MB.
_MAX_BYTES = 256 * 2**20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_pascal_voc(images: list[Path], xml_of_image: dict[Path, Path]) -> LabelledImages:
    """Reads the XML file of each image. Objects that cannot be read are noted as problems, with their number.

    Corners are pixels that count from 1, both inside of the box. An image without objects has an XML file
    too: an image without one, or with one that cannot be read, is not labelled, and is left out.
    """
    dataset = LabelledImages([])
    found = {path: _objects(dataset, xml_of_image[path]) for path in images if path in xml_of_image}
    names = sorted({name for objects in found.values() for _, name, _ in objects or []})
    places = [f"the class {name!r}" for name in names]
    ids = dict(zip(names, class_ids_of(dataset, names, places, images[0].parent), strict=True))
    for path in images:
        size = size_of_image(dataset, path)
        if size is None:
            continue
        if path not in found:
            dataset.note(path, "", "left out: it has no XML file, so it is not labelled")
        objects = found.get(path)
        if objects is not None:
            known = [(place, box, ids[name]) for place, name, box in objects]
            labels = [Label(place, box, class_id) for place, box, class_id in known if class_id is not None]
            add_image(dataset, path, size, labels, xml_of_image[path])
    return dataset


_Object = tuple[str, str, tuple[float, float, float, float]]


def _objects(dataset: LabelledImages, file: Path) -> list[_Object] | None:
    """The place, class name and corners of each object in a file; None if it cannot be read."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES:,} bytes")
        content = file.read_bytes()
        if b"<!ENTITY" in content:
            raise ValueError("it declares entities")
        root = ElementTree.fromstring(content)
    except OSError as error:
        dataset.note(file, "", f"its image is left out: the file cannot be read: {error.strerror}")
        return None
    except (ValueError, LookupError, ElementTree.ParseError) as error:
        dataset.note(file, "", f"its image is left out: the file cannot be read: {error}")
        return None
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        try:
            objects.append((f"object {number}", *_object(element)))
        except ValueError as error:
            dataset.note(file, f"object {number}", f"left out: {error}")
    return objects


def _object(element: ElementTree.Element) -> tuple[str, tuple[float, float, float, float]]:
    name = (element.findtext("name") or "").strip()
    if problem := class_name_problem(name):
        raise ValueError(problem)
    texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
    shown = ", ".join(f"{corner} {text or 'missing'}" for corner, text in zip(_CORNERS, texts, strict=True))
    try:
        x_min, y_min, x_max, y_max = (float(text or "") for text in texts)
    except ValueError as error:
        raise ValueError(f"its corners are {shown}") from error
    if not all(map(math.isfinite, (x_min, y_min, x_max, y_max))) or x_max < x_min or y_max < y_min:
        raise ValueError(f"its corners are {shown}")
    return name, (x_min - 1, y_min - 1, x_max, y_max)
