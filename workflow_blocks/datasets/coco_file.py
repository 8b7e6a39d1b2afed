"""The COCO annotations files: one for each split, written whole from the records.

While the files are small, they are written with each change. Later this would cost more with each image,
so changes are collected: see `late_writes`. A file carries the checksum of its own content. So a file that is
old, copied or restored is told from one that somebody edited. The former is written again; the latter is an
error. It also carries the revision of the records. So it is not written again from records that are older.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import supervision as sv
from supervision.dataset.formats.coco import classes_to_coco_categories, detections_to_coco_annotations

from workflow_blocks.datasets.details import Detail
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.file_changes import HIDDEN_FOLDER, DatasetFolder
from workflow_blocks.datasets.records import ImageRecord, Records

# Files of this size together are written in some milliseconds.
MAX_BYTES_AT_ONCE = 256 * 1024
# The most boxes of an image; the annotation ids of an image start at its id times this.
MAX_BOXES = 100_000

_HEAD = b'{"info": {"description": "Written by moondream2-workflow-blocks", "checksum": "'
_CHECKSUM_LENGTH = 64
_REVISION = re.compile(rb'", "revision": (\d+)}')
_REVISION_LENGTH = 50  # or less
_ROWS_AT_ONCE = 1000

logger = logging.getLogger(__name__)


class CocoFiles:
    """The annotations files of a dataset. The caller must hold the dataset's lock."""

    def __init__(self, folder: DatasetFolder, records: Records, splits: Sequence[str]) -> None:
        self._folder = folder
        self._records = records
        self._splits = splits

    def change(self, old: ImageRecord | None, new: ImageRecord | None, has_new_classes: bool) -> None:
        """Records what changes in the files. Called inside `Records.change`.

        Raises:
            DatasetError: a file that must change was edited, or cannot be written.
        """
        if old is not None:
            self._records.execute("DELETE FROM coco_texts WHERE image_id = ?", old.id)
        if new is not None:
            self.add_text(new)
        changed = {record.split for record in (old, new) if record is not None}
        if has_new_classes:
            changed |= {split for split in self._splits if self._is_used(split)}
        for split in sorted(changed):
            self._folder.make_writable(_name(split))
            self._is_usable(split)
            self._mark_changed(split)

    def add_text(self, record: ImageRecord) -> None:
        """Records what the file says of an image; it is written again and again, and computed once."""
        if len(record.boxes) > MAX_BOXES:
            raise DatasetError(f"the image has {len(record.boxes)} boxes; at most {MAX_BOXES} are possible")
        self._records.execute(
            "INSERT INTO coco_texts VALUES (?, ?, ?, ?)",
            record.id,
            record.split,
            json.dumps(entry_of_image(record)),
            json.dumps(annotations_of_image(record))[1:-1],
        )

    def changed_at(self, without: Iterable[str] = ()) -> float | None:
        """When the first change was recorded that is not in the files yet, in seconds since 1970.

        Args:
            without: files that are in place already.
        """
        rows = self._records.execute("SELECT split, changed_at FROM coco_splits WHERE changed_at IS NOT NULL")
        return min((changed_at for split, changed_at in rows if _name(split) not in without), default=None)

    @property
    def is_quick(self) -> bool:
        """Whether the files that changed are small enough to be written at once."""
        return sum(_size(self._path(split)) for split in self._changed_splits()) <= MAX_BYTES_AT_ONCE

    def files(self) -> dict[str, bytes]:
        """The files that changed, by their place in the dataset's folder. Called inside `Records.change`.

        Raises:
            DatasetError: a file was edited.
        """
        splits = self._changed_splits()
        if splits:
            self._records.set_setting("revision", str(self._revision() + 1))
        files = {}
        for split in splits:
            if not self._is_usable(split):
                aside = f"{split}/.damaged-{time.time_ns()}.json"
                logger.warning("%s is not readable as JSON; it is kept as %s", self._path(split), aside)
                files[aside] = self._path(split).read_bytes()
        return files | {_name(split): self.content(split) for split in splits}

    def have_been_written(self, names: Iterable[str]) -> None:
        """Notes which files are in place with all changes; their checksums need not be computed again."""
        for split in self._splits:
            if _name(split) in names:
                self._records.execute(
                    "UPDATE coco_splits SET last_written = ?, changed_at = NULL WHERE split = ?",
                    state_of(self._path(split)),
                    split,
                )

    def find_changed(self) -> None:
        """Notes the files that are not those written last: removed, damaged, copied or restored.

        Raises:
            DatasetError: a file is newer than the records, which were put back from an older copy.
        """
        for split in self._splits:
            if self._folder.is_linked(_name(split)) or self._is_known(split):
                continue  # a link is an error when the file is written
            self._check_age(split)
            if self._is_used(split) and not self._is_edited(split):
                self._mark_changed(split)

    def accept(self, split: str) -> None:
        """Notes that a file may be replaced, whatever its checksum."""
        self._mark_changed(split)
        state = state_of(self._path(split))
        self._records.execute("UPDATE coco_splits SET last_written = ? WHERE split = ?", state, split)

    def _changed_splits(self) -> list[str]:
        rows = self._records.execute("SELECT split FROM coco_splits WHERE changed_at IS NOT NULL")
        return [split for (split,) in rows]

    def _is_used(self, split: str) -> bool:
        return self._records.has_images(split) or bool(
            self._records.execute("SELECT 1 FROM coco_splits WHERE split = ?", split)
        )

    def _mark_changed(self, split: str) -> None:
        self._records.execute(
            "INSERT INTO coco_splits VALUES (?, '', ?) ON CONFLICT (split) DO UPDATE SET "
            "changed_at = coalesce(changed_at, excluded.changed_at)",
            split,
            time.time(),
        )

    def _is_known(self, split: str) -> bool:
        """Whether a file is the one that was written last."""
        rows = self._records.execute("SELECT last_written FROM coco_splits WHERE split = ?", split)
        path = self._path(split)
        return path.exists() and bool(rows) and rows[0][0] == state_of(path)

    def _is_edited(self, split: str) -> bool:
        path = self._path(split)
        return path.exists() and not is_unedited(path) and _is_json(path)

    def _check_age(self, split: str) -> None:
        path = self._path(split)
        if path.is_file() and _revision_in(path) > self._revision() and is_unedited(path):
            raise DatasetError(
                f"{path} is newer than the dataset's records; put back the folder {HIDDEN_FOLDER} that "
                "belongs to it, or move the file away and it is written again without its newest images"
            )

    def _revision(self) -> int:
        """How many times files were written from the records."""
        return int(self._records.setting("revision") or 0)

    def _is_usable(self, split: str) -> bool:
        """Whether a file may be replaced; if not, it is no JSON any more and must be kept aside.

        Raises:
            DatasetError: somebody edited it.
        """
        path = self._path(split)
        if not path.exists() or self._is_known(split) or is_unedited(path):
            return True
        if _is_json(path):
            raise DatasetError(
                f"{path} was edited since it was written; move it away and it is written again without the "
                "edits, or choose another target directory"
            )
        return False

    def content(self, split: str) -> bytes:
        """The file of a split, from the records."""
        body = f'", "revision": {self._revision()}}}, "licenses": [], '.encode() + b"".join(
            self._pieces(split)
        )
        return _HEAD + hashlib.sha256(body).hexdigest().encode() + body

    def _pieces(self, split: str) -> Iterator[bytes]:
        categories = categories_of(self._records.class_names())
        yield b'"categories": ' + json.dumps(categories).encode()
        for field, column in (("images", "image"), ("annotations", "annotations")):
            yield f', "{field}": [\n'.encode()
            cursor = self._records.connection.execute(
                f"SELECT {column} FROM coco_texts WHERE split = ? AND {column} != '' ORDER BY image_id",
                (split,),
            )
            separator = b""
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                yield separator + ",\n".join(text for (text,) in rows).encode()
                separator = b",\n"
            yield b"\n]"
        yield b"}\n"

    def _path(self, split: str) -> Path:
        return self._folder.checked(_name(split))


def is_unedited(path: Path) -> bool:
    """Whether a file is one that this class wrote, whenever and wherever, and nobody changed since."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if file.read(len(_HEAD)) != _HEAD:
            return False
        checksum = file.read(_CHECKSUM_LENGTH)
        for chunk in _chunks(file):
            digest.update(chunk)
    return checksum == digest.hexdigest().encode()


def _revision_in(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(len(_HEAD) + _CHECKSUM_LENGTH)
        found = _REVISION.match(file.read(_REVISION_LENGTH))
    return int(found[1]) if found else 0


def _chunks(file: BinaryIO) -> Iterable[bytes]:
    return iter(lambda: file.read(2**20), b"")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def _name(split: str) -> str:
    return f"{split}/_annotations.coco.json"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def state_of(path: Path) -> str:
    """Differs between two writes of a file, also of the same content."""
    status = path.stat()
    return f"{status.st_size} {status.st_ctime_ns} {status.st_ino}"  # some editors put back `st_mtime`


def categories_of(class_names: Sequence[str]) -> list[dict[str, Any]]:
    """What the file says of the classes."""
    return list(classes_to_coco_categories(list(class_names)))


def entry_of_image(record: ImageRecord) -> dict[str, Any]:
    """What the file says of an image, without its boxes."""
    image = {"id": record.id, "file_name": record.file_name, "width": record.width, "height": record.height}
    return image | ({"extra": {"name": record.source_name}} if record.source_name else {})


def annotations_of_image(record: ImageRecord) -> list[dict[str, Any]]:
    """What the file says of an image's boxes. Their ids follow from the image's id."""
    detections = sv.Detections(
        xyxy=np.array(record.boxes, dtype=np.float64).reshape(-1, 4),
        class_id=np.array(record.class_ids, dtype=int),
    )
    first_id = record.id * MAX_BOXES
    annotations, _ = detections_to_coco_annotations(detections, image_id=record.id, annotation_id=first_id)
    if not record.details:
        return list(annotations)
    details = [_detail(record, detail) for detail in record.details]
    return [annotation | detail for annotation, detail in zip(annotations, details, strict=True)]


def _detail(record: ImageRecord, detail: Detail) -> dict[str, Any]:
    """What an annotation has besides its box. Masks with holes are run lengths, others are polygons."""
    fields: dict[str, Any] = {}
    if detail.polygons:
        runs = {"size": [record.height, record.width], "counts": list(detail.runs)}
        fields |= {"segmentation": runs if detail.runs else list(map(list, detail.polygons))}
        fields |= {"area": float(detail.area)}
    if detail.score is not None:
        fields["score"] = detail.score
    known = {name: value for name, value in detail.attributes.items() if value is not None}
    if attributes := ({"prompt": detail.prompt} if detail.prompt else {}) | known:
        fields["attributes"] = attributes
    return fields
