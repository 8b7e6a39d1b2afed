"""Reads a split of a labelled dataset: COCO, YOLO or Pascal VOC, in the layouts that common tools write."""

import os
from collections.abc import Callable, Iterator, Mapping
from glob import escape
from pathlib import Path
from typing import Any

from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import FORMATS, DatasetFormatName
from workflow_blocks.datasets.labelled_coco import has_boxes, read_coco
from workflow_blocks.datasets.labelled_images import LabelledImages
from workflow_blocks.datasets.labelled_pascal_voc import read_pascal_voc
from workflow_blocks.datasets.labelled_yolo import has_labels, read_data_yaml, read_lines, read_yolo

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# What tools call the same split.
_SPLITS = {"train", "valid", "val", "validation", "test"}
_OTHER_NAMES = dict.fromkeys(("valid", "val"), ("valid", "val", "validation"))


def read_labelled(
    folder: Path, split: str = "valid", format: DatasetFormatName | None = None
) -> LabelledImages:
    """Reads the images and true boxes of a split.

    Args:
        folder: the dataset's folder.
        split: such as `train`, `valid` (also `val`) or `test`.
        format: one of `formats.FORMATS`; by default the one whose files are there.

    Returns:
        Every image that can be read, also without boxes. What is left out is in `problems`.

    Raises:
        DatasetError: there is no such dataset, format or split, or it has no labels at all.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder; give the folder of a dataset")
    if format is not None and format not in FORMATS:
        raise DatasetError(f"the format is {format!r}; give {', '.join(FORMATS)}")
    names = _OTHER_NAMES.get(split, (split,))
    readers = _READERS.items() if format is None else [(format, _READERS[format])]
    for _, read in readers:
        dataset = read(folder, names)
        if dataset is not None:
            if not any(len(image.boxes) for image in dataset.images):
                first = f" The first problem: {dataset.problems[0]}." if dataset.problems else ""
                raise DatasetError(f"the split {split!r} of {folder} has no labels.{first}")
            dataset.source = f"{folder.resolve()}, {names[0]}"
            return dataset
    kind = f"a {format} dataset" if format else "a COCO, YOLO or Pascal VOC dataset"
    there = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    raise DatasetError(
        f"{folder} is not {kind} with labels of the split {split!r}; "
        f"its folders are: {', '.join(there) or 'none'}"
    )


def _coco(folder: Path, names: tuple[str, ...]) -> LabelledImages | None:
    """`<split>/_annotations.coco.json`, or `annotations/instances_<split>.json` with `<split>/` beside it."""
    for name in names:
        for file in (folder / name / "_annotations.coco.json", folder / name / "annotations.json"):
            if file.is_file():
                return read_coco(file, file.parent)
        files = sorted((folder / "annotations").glob(f"*{escape(name)}*.json"))
        # In `instances_val2017.json`, the images are in `val2017`.
        own = {file: file.stem[file.stem.index(name) :] for file in files}
        places = {
            file: [
                base / one for one in dict.fromkeys((own[file], name)) for base in (folder, folder / "images")
            ]
            + [*sorted(folder.glob(f"{escape(name)}20??")), folder / "images"]
            for file in files
        }
        files = [file for file in files if any(place.is_dir() for place in places[file])]
        if files:
            file = _with_boxes(files)
            return read_coco(file, next(place for place in places[file] if place.is_dir()))
    return None


def _with_boxes(files: list[Path]) -> Path:
    """Of COCO's files of one split, the one with boxes: `instances_...`, or the only one that has some.

    Raises:
        DatasetError: several files are equally good.
    """
    if len(files) == 1:
        return files[0]
    good = [file for file in files if file.name.startswith("instances")] or list(filter(has_boxes, files))
    if len(good) > 1:
        raise DatasetError(
            f"{files[0].parent} has several files with boxes of this split: "
            f"{', '.join(file.name for file in good)}; give a --split that only one of them has in its name"
        )
    return (good or files)[0]


def _yolo(folder: Path, names: tuple[str, ...]) -> LabelledImages | None:
    """`data.yaml` (or another), with the images where it says, in `<split>/images` or in `images/<split>`."""
    files = [folder / "data.yaml", folder / "dataset.yaml", *sorted(folder.glob("*.yaml"))]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    document = read_data_yaml(file)
    for images in _images_of_yolo(folder, names, document):
        if any(map(has_labels, images)):
            return read_yolo(file, document["names"], images, has_key_points="kpt_shape" in document)
    return None


def _images_of_yolo(
    folder: Path, names: tuple[str, ...], document: Mapping[str, Any]
) -> Iterator[list[Path]]:
    """What may be the images of a split: first those that `data.yaml` names, then those in usual places."""
    # Where a split has no images, some tools name another split in its place.
    others = _SPLITS - set(names)
    root = folder / str(document.get("path") or "")
    for name in names:
        value = document.get(name)
        texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
        parts = {part for text in texts for part in Path(text).parts}
        if texts and (not others & parts or set(names) & parts):
            # Roboflow writes `../valid/images` for a folder that is beside data.yaml.
            both = [[base / text.removeprefix("../") for base in (root, folder)] for text in texts]
            found = [next(filter(Path.exists, bases), folder) for bases in both]
            images = [image for place in found for image in _images_at(place, folder, place != folder)]
            # A folder may be named twice, or with one inside of it.
            yield list(dict.fromkeys(Path(os.path.normpath(image)) for image in images))
    places = [folder / name / "images" for name in names] + [folder / "images" / name for name in names]
    yield from map(_images_in, places + [folder / name for name in names])


def _images_at(place: Path, folder: Path, and_below: bool) -> list[Path]:
    """The images in a folder, or also in the folders below it, or those that a text file lists."""
    if not place.is_file():
        return _images_in(place, and_below)
    return [
        folder / line.strip() for line in read_lines(place) if (folder / line.strip()).name and line.strip()
    ]


def _pascal_voc(folder: Path, names: tuple[str, ...]) -> LabelledImages | None:
    """`<split>/` with XML beside the images, or VOC's own `Annotations`, `JPEGImages`, `ImageSets/Main`."""
    for name in names:
        images = _images_in(folder / name)
        files = {path: path.with_suffix(".xml") for path in images if path.with_suffix(".xml").is_file()}
        lonely = {file.stem for file in (folder / name).glob("*.xml")} - {path.stem for path in images}
        if files:
            missing = [folder / name / f"{stem}.jpg" for stem in sorted(lonely)]
            return read_pascal_voc([*images, *missing], files)
        listed = folder / "ImageSets" / "Main" / f"{name}.txt"
        if listed.is_file():
            words = [line.split() for line in read_lines(listed)]
            by_stem = {path.stem: path for path in _images_in(folder / "JPEGImages")}
            stems = dict.fromkeys(line[0] for line in words if line)
            images = [by_stem.get(stem, folder / "JPEGImages" / f"{stem}.jpg") for stem in stems]
            files = {path: folder / "Annotations" / f"{path.stem}.xml" for path in images}
            files = {path: file for path, file in files.items() if file.is_file()}
            if files:
                return read_pascal_voc(images, files)
    return None


def _images_in(folder: Path, and_below: bool = False) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = folder.rglob("*") if and_below else folder.iterdir()
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)


_Reader = Callable[[Path, tuple[str, ...]], LabelledImages | None]
_READERS: dict[DatasetFormatName, _Reader] = {"coco": _coco, "yolo": _yolo, "pascal_voc": _pascal_voc}
