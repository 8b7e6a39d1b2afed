"""The dataset formats: their files, and the order in which the files are written.

An image becomes part of a dataset by one rename, which comes last. For YOLO and Pascal VOC, which have
a label file for each image, it is the rename of the image; for COCO it is that of the annotations file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import yaml
from supervision.dataset.formats.pascal_voc import detections_to_pascal_voc
from supervision.dataset.formats.yolo import detections_to_yolo_annotations

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.datasets.coco_file import SCHEMA, CocoFile
from workflow_blocks.datasets.records import ImageRecord, Records

DatasetFormatName = Literal["coco", "yolo", "pascal_voc"]
SplitName = Literal["train", "valid", "test"]

FORMATS: tuple[DatasetFormatName, ...] = get_args(DatasetFormatName)
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


class DatasetFormat(Protocol):
    """One format's files. The caller must hold the dataset's lock."""

    def image_path(self, record: ImageRecord) -> Path:
        """The path of an image."""

    def write_labels(self, record: ImageRecord, class_names: Sequence[str]) -> None:
        """Writes the files that must exist before the image does."""

    def keep(self, old: ImageRecord | None, new: ImageRecord | None) -> None:
        """Prepares a change. Called inside the transaction that changes the records."""

    def publish(self) -> None:
        """Makes a prepared change public, even if its writer was killed since."""

    def remove(self, record: ImageRecord) -> None:
        """Removes the files of an image that is no longer part of the dataset."""


class Coco:
    """`<split>/_annotations.coco.json` with the images beside it."""

    def __init__(self, folder: Path, hidden_folder: Path, records: Records) -> None:
        self._folder = folder
        records.connection.executescript(SCHEMA)
        self._files: dict[str, CocoFile] = {
            split: CocoFile(records, folder / split / "_annotations.coco.json", hidden_folder, split)
            for split in SPLITS
        }

    def image_path(self, record: ImageRecord) -> Path:
        return self._folder / record.split / record.file_name

    def write_labels(self, record: ImageRecord, class_names: Sequence[str]) -> None:
        """Does nothing: the annotations are written after the image, see `publish`."""

    def keep(self, old: ImageRecord | None, new: ImageRecord | None) -> None:
        if old is not None and (new is None or new.split != old.split):
            self._files[old.split].change(old.id, None)
            old = None
        if new is not None:
            self._files[new.split].change(old.id if old else None, new)

    def publish(self) -> None:
        for file in self._files.values():
            file.publish()

    def remove(self, record: ImageRecord) -> None:
        self.image_path(record).unlink(missing_ok=True)


class _LabelFiles:
    """Shared by the formats with a label file for each image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def image_path(self, record: ImageRecord) -> Path:
        raise NotImplementedError

    def label_path(self, record: ImageRecord) -> Path:
        raise NotImplementedError

    def keep(self, old: ImageRecord | None, new: ImageRecord | None) -> None:
        """Does nothing: no file depends on other images."""

    def publish(self) -> None:
        """Does nothing: the image's rename made the change public."""

    def remove(self, record: ImageRecord) -> None:
        self.image_path(record).unlink(missing_ok=True)
        self.label_path(record).unlink(missing_ok=True)


class Yolo(_LabelFiles):
    """`<split>/images` and `<split>/labels`, with the class names in `data.yaml`."""

    def image_path(self, record: ImageRecord) -> Path:
        return self._folder / record.split / "images" / record.file_name

    def label_path(self, record: ImageRecord) -> Path:
        return (self._folder / record.split / "labels" / record.file_name).with_suffix(".txt")

    def write_labels(self, record: ImageRecord, class_names: Sequence[str]) -> None:
        self._write_class_names(class_names)
        lines = detections_to_yolo_annotations(record.detections, (record.height, record.width, 3))
        self.label_path(record).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.label_path(record), "".join(f"{line}\n" for line in lines).encode())

    def _write_class_names(self, class_names: Sequence[str]) -> None:
        places = {key: f"{split}/images" for key, split in zip(("train", "val", "test"), SPLITS, strict=True)}
        document = {**places, "nc": len(class_names), "names": list(class_names)}
        content = yaml.safe_dump(document, sort_keys=False).encode()
        path = self._folder / "data.yaml"
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


class PascalVoc(_LabelFiles):
    """`<split>/` with each image's XML beside it."""

    def image_path(self, record: ImageRecord) -> Path:
        return self._folder / record.split / record.file_name

    def label_path(self, record: ImageRecord) -> Path:
        return self.image_path(record).with_suffix(".xml")

    def write_labels(self, record: ImageRecord, class_names: Sequence[str]) -> None:
        shape = (record.height, record.width, 3)
        document = detections_to_pascal_voc(record.detections, list(class_names), record.file_name, shape)
        write_atomically(self.label_path(record), document.encode())
