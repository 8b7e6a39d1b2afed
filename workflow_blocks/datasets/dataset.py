"""Adds images to a dataset on disk. Threads and processes may share one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt
from filelock import FileLock

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.datasets.formats import (
    SPLITS,
    Coco,
    DatasetFormat,
    DatasetFormatName,
    PascalVoc,
    SplitName,
    Yolo,
)
from workflow_blocks.datasets.records import Box, DatasetError, ImageRecord, Records
from workflow_blocks.image_hash import image_hash

# Holds a dataset's records; hidden, so that importers ignore it.
HIDDEN_FOLDER = ".dataset"

_LOCK_SECONDS = 60


class Dataset:
    """A dataset of one format in one folder; a context manager."""

    def __init__(
        self, folder: Path, format: DatasetFormatName, class_names: Sequence[str] | None = None
    ) -> None:
        """Opens a dataset, or starts a new one.

        Args:
            folder: the dataset's folder; created if it does not exist.
            format: one of `formats.FORMATS`.
            class_names: the only classes, in the order of their ids; by default, classes are added as they
                appear.

        Raises:
            DatasetError: the folder holds a dataset of another format or with other classes.
            OSError: the folder cannot be written.
        """
        self._folder = folder
        hidden = folder / HIDDEN_FOLDER
        self._check_links(HIDDEN_FOLDER)
        hidden.mkdir(parents=True, exist_ok=True)
        self._check_links(*(f"{HIDDEN_FOLDER}/{path.name}" for path in hidden.iterdir()))
        self._lock = FileLock(hidden / "lock", timeout=_LOCK_SECONDS)
        self._has_fixed_classes = class_names is not None
        with self._lock:
            self._records = Records(hidden / "records.sqlite")
            self._format = self._open_format(format, hidden)
            self._check_classes(class_names)

    def __enter__(self) -> "Dataset":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._records.close()

    def add(
        self,
        image_bgr: npt.NDArray[np.uint8],
        boxes: Sequence[Box],
        class_names: Sequence[str],
        split: SplitName | Mapping[SplitName, float],
        image_suffix: str = ".jpg",
        jpeg_quality: int = 95,
    ) -> Path:
        """Adds an image with its boxes. An image that is already there gets the new boxes.

        Args:
            image_bgr: uint8 (H, W, 3).
            boxes: corners in its pixels.
            class_names: a name for each box.
            split: one of `SPLITS`, or the share of each; the image's pixels then decide.
            image_suffix: `.jpg` or `.png`.
            jpeg_quality: 1 to 100.

        Returns:
            The path of the image. When the call returns, the image is part of the dataset.

        Raises:
            DatasetError: a class is not one of the dataset's fixed classes.
            OSError: it cannot be written; the dataset is unchanged.
        """
        content = _content_of(image_bgr)
        is_written, encoded = cv2.imencode(image_suffix, image_bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
        if not is_written:
            raise DatasetError(f"the image cannot be written as {image_suffix}")
        height, width = image_bgr.shape[:2]
        with self._lock:
            self._format.publish()
            known = self._known_classes(class_names)
            old = self._records.find(content)
            new = ImageRecord(
                id=old.id if old else 0,
                content=content,
                split=split if isinstance(split, str) else split_of(content, split),
                file_name=content + image_suffix,
                width=width,
                height=height,
                boxes=tuple(boxes),
                class_ids=tuple(known.index(name) for name in class_names),
            )
            path = self._format.image_path(new)
            self._check_links(new.split, f"{new.split}/images", f"{new.split}/labels")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._format.write_labels(new, known)
            write_atomically(path, encoded.tobytes())
            with self._records.change():
                self._format.keep(old, self._records.put(new))
            self._format.publish()
            if old is not None and self._format.image_path(old) != path:
                self._format.remove(old)
        return path

    def discard(self, image_bgr: npt.NDArray[np.uint8]) -> None:
        """Removes an image if the dataset has it."""
        with self._lock:
            self._format.publish()
            old = self._records.find(_content_of(image_bgr))
            if old is None:
                return
            with self._records.change():
                self._records.remove(old.content)
                self._format.keep(old, None)
            self._format.publish()
            self._format.remove(old)

    def _open_format(self, format: DatasetFormatName, hidden: Path) -> DatasetFormat:
        found = self._records.setting("format")
        if found is None:
            with self._records.change():
                self._records.set_setting("format", format)
        elif found != format:
            raise DatasetError(
                f"{self._folder} holds a dataset in the format {found!r}, not {format!r}; "
                "choose another target directory"
            )
        if format == "coco":
            return Coco(self._folder, hidden, self._records)
        return Yolo(self._folder) if format == "yolo" else PascalVoc(self._folder)

    def _check_classes(self, class_names: Sequence[str] | None) -> None:
        if class_names is None:
            return
        known = self._records.class_names()
        if list(class_names[: len(known)]) != known:
            raise DatasetError(
                f"{self._folder} has the classes {known} already, and `class_names` is {list(class_names)}; "
                "start the list with those, or choose another target directory"
            )
        with self._records.change():
            self._records.add_classes(class_names)

    def _check_links(self, *names: str) -> None:
        """Refuses links in the dataset's folder that lead out of it."""
        root = self._folder.resolve()
        for name in names:
            if not (self._folder / name).resolve().is_relative_to(root):
                raise DatasetError(
                    f"{self._folder / name} is a link that leads out of the dataset; remove it"
                )

    def _known_classes(self, class_names: Sequence[str]) -> list[str]:
        known = self._records.class_names()
        new = [name for name in dict.fromkeys(class_names) if name not in known]
        for name in new:
            if not name.isprintable() or not name:
                raise DatasetError(f"the class name {name!r} cannot be written; use printable characters")
        if new and self._has_fixed_classes:
            raise DatasetError(f"the class {new[0]!r} is not in `class_names`; add it there")
        if new:
            with self._records.change():
                known = self._records.add_classes(new)
        return known


def split_of(content: str, shares: Mapping[SplitName, float]) -> SplitName:
    """The split of an image, chosen by its content so that every run chooses the same."""
    place = int(content[:12], 16) / 16**12 * sum(shares.values())
    for split in SPLITS:
        place -= shares.get(split, 0)
        if place < 0:
            return split
    return max(shares, key=lambda split: shares[split])


def _content_of(image: npt.NDArray[np.uint8]) -> str:
    return image_hash(image).hexdigest()[:32]
