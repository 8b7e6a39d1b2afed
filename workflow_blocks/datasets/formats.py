"""The dataset formats: which files an image and its boxes become."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol, get_args

from workflow_blocks.datasets.coco_file import CocoFiles
from workflow_blocks.datasets.file_changes import DatasetFolder
from workflow_blocks.datasets.pascal_voc_file import pascal_voc_xml
from workflow_blocks.datasets.records import ImageRecord, Records
from workflow_blocks.datasets.yolo_files import checked_class_list, data_yaml, label_text

DatasetFormatName = Literal["coco", "yolo", "pascal_voc"]
SplitName = Literal["train", "valid", "test"]

FORMATS: tuple[DatasetFormatName, ...] = get_args(DatasetFormatName)
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

# Contents by place in the dataset's folder, in the order in which the files are put in place.
Files = dict[str, bytes]


@dataclass(frozen=True)
class Change:
    """An image that is added (`old` is None), replaced, or removed (`new` is None)."""

    old: ImageRecord | None
    new: ImageRecord | None
    image: bytes
    has_new_classes: bool


class DatasetFormat(Protocol):
    """One format's files. The caller must hold the dataset's lock."""

    def image_name(self, record: ImageRecord) -> str:
        """The place of an image in the dataset's folder."""

    def names(self, record: ImageRecord) -> list[str]:
        """The places of an image and of the label file beside it, in the order in which they are removed."""

    def files(self, change: Change) -> Files:
        """The files that a change writes. Called inside `Records.change`, after the records were changed.

        Raises:
            DatasetError: a file that must change was edited.
        """


class Coco:
    """`<split>/_annotations.coco.json` with the images beside it."""

    def __init__(self, annotations: CocoFiles) -> None:
        self._annotations = annotations

    def image_name(self, record: ImageRecord) -> str:
        return f"{record.split}/{record.file_name}"

    def names(self, record: ImageRecord) -> list[str]:
        return [self.image_name(record)]

    def files(self, change: Change) -> Files:
        """The annotations come last, so that they name no image that is not there."""
        self._annotations.change(change.old, change.new, change.has_new_classes)
        image = {} if change.new is None else {self.image_name(change.new): change.image}
        return image | (self._annotations.files() if self._annotations.is_quick else {})


class _LabelFiles:
    """Shared by the formats with a label file for each image. The image comes last."""

    def image_name(self, record: ImageRecord) -> str:
        raise NotImplementedError

    def label_name(self, record: ImageRecord) -> str:
        raise NotImplementedError

    def label(self, record: ImageRecord) -> bytes:
        raise NotImplementedError

    def names(self, record: ImageRecord) -> list[str]:
        return [self.image_name(record), self.label_name(record)]

    def files(self, change: Change) -> Files:
        if change.new is None:
            return {}
        label = {self.label_name(change.new): self.label(change.new)}
        return label | {self.image_name(change.new): change.image}


class Yolo(_LabelFiles):
    """`<split>/images`, `<split>/labels`; class names in `data.yaml` and `<split>/classes.txt`."""

    def __init__(self, folder: DatasetFolder, records: Records) -> None:
        self._folder = folder
        self._records = records

    def image_name(self, record: ImageRecord) -> str:
        return f"{record.split}/images/{record.file_name}"

    def label_name(self, record: ImageRecord) -> str:
        return f"{record.split}/labels/{PurePosixPath(record.file_name).stem}.txt"

    def label(self, record: ImageRecord) -> bytes:
        return label_text(record).encode()

    def files(self, change: Change) -> Files:
        changed = {name: content for name, content in self._shared_files() if self._read(name) != content}
        return changed | super().files(change)

    def _shared_files(self) -> Iterator[tuple[str, bytes]]:
        names = self._records.class_names()
        used = [split for split in SPLITS if self._records.has_images(split)]
        path = self._folder.checked("data.yaml")
        yield "data.yaml", data_yaml(path, self._read("data.yaml"), names, used)
        for split in used:
            name = f"{split}/classes.txt"
            yield name, checked_class_list(self._folder.checked(name), self._read(name), names)

    def _read(self, name: str) -> bytes | None:
        try:
            return self._folder.checked(name).read_bytes()
        except FileNotFoundError:
            return None


class PascalVoc(_LabelFiles):
    """`<split>/` with each image's XML beside it."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def image_name(self, record: ImageRecord) -> str:
        return f"{record.split}/{record.file_name}"

    def label_name(self, record: ImageRecord) -> str:
        return f"{record.split}/{PurePosixPath(record.file_name).stem}.xml"

    def label(self, record: ImageRecord) -> bytes:
        return pascal_voc_xml(record, self._records.class_names())


def make_format(
    name: DatasetFormatName, folder: DatasetFolder, records: Records, annotations: CocoFiles
) -> DatasetFormat:
    if name == "coco":
        return Coco(annotations)
    return Yolo(folder, records) if name == "yolo" else PascalVoc(records)
