"""Adds images to a dataset on disk. Threads and processes may share one."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from workflow_blocks.datasets.caption_files import CaptionFiles
from workflow_blocks.datasets.class_names import check_class_name
from workflow_blocks.datasets.coco_file import CocoFiles
from workflow_blocks.datasets.details import Detail
from workflow_blocks.datasets.earlier_release import upgrade
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.file_changes import HIDDEN_FOLDER, STAGED_FOLDER, DatasetFolder, FileChanges
from workflow_blocks.datasets.formats import SPLITS, Change, DatasetFormatName, SplitName, make_format
from workflow_blocks.datasets.image_files import check_size, encode, file_stem
from workflow_blocks.datasets.late_writes import LateWrites
from workflow_blocks.datasets.records import Box, ImageRecord, Records, separate_from_links
from workflow_blocks.datasets.schema import Schema
from workflow_blocks.datasets.splits import content_of, split_of

RECORDS = "records.sqlite"
_LOCK_SECONDS = 60
_MAX_PATH_BYTES = 504  # of SQLite

logger = logging.getLogger(__name__)


class Dataset:
    """A dataset of one format in one folder; a context manager."""

    def __init__(
        self, folder: Path, format: DatasetFormatName, class_names: Sequence[str] | None = None
    ) -> None:
        """Opens a dataset, or starts a new one, and completes what a killed writer left undone.

        Args:
            folder: the dataset's folder; created if it does not exist.
            format: one of `formats.FORMATS`.
            class_names: the only classes, in the order of their ids; by default, classes are added as they
                appear.

        Raises:
            DatasetError: the folder holds a dataset of another format, with other classes or without its
                records, or it is damaged, or a link leads elsewhere.
            OSError: the folder cannot be written.
        """
        for name in class_names or ():
            check_class_name(name)
        self._folder = DatasetFolder(folder)
        self._format_name = format
        self._class_names = class_names
        hidden = self._make_hidden_folder()
        self._lock = FileLock(hidden / "lock", timeout=_LOCK_SECONDS)
        self._late_writes = LateWrites(hidden / "late_writes.lock")
        with self._lock:
            separate_from_links(hidden / RECORDS, self._folder.checked(STAGED_FOLDER))
            self._records = Records(hidden / RECORDS)
            try:
                self._open()
            except BaseException:
                self.close()
                raise

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
        source_name: str = "",
        original: bytes | None = None,
        details: Sequence[Detail] = (),
        file_prefix: str = "",
        caption: str = "",
    ) -> Path:
        """Adds an image with its boxes. An image that is already there gets the new boxes and name.

        Args:
            image_bgr: uint8 (H, W, 3).
            boxes: corners in its pixels, inside of the image.
            class_names: a name for each box.
            split: one of `SPLITS`, or the share of each; the image's pixels then decide.
            image_suffix: `.jpg` or `.png`.
            jpeg_quality: 1 to 100, for an image that is encoded here.
            source_name: the name under which the image came; the file's name starts with it.
            original: the bytes that the image was decoded from. They become the file if it shows the same
                pixels to every reader.
            details: scores, prompts and masks, one for each box; empty if nothing is known.
            file_prefix: what the file's name starts with, before the name that the image came under.
            caption: a text about the image, for `metadata.jsonl` beside the images; empty for none.

        Returns:
            The path of the image. When the call returns, the image is part of the records, even if the
            process is killed. Its annotations are in the dataset's files too, but those of a large COCO
            dataset, and the captions of a large dataset, up to two seconds later.

        Raises:
            DatasetError: a class is not one of the dataset's fixed classes, a file of the dataset was edited,
                or the records are damaged or cannot be written.
            OSError: it cannot be written.

        If it raises, the dataset is as it was before, or as it is after; the next call completes it.
        """
        new = _unrecorded(image_bgr, boxes, split, source_name, details, caption)
        encoded = encode(image_bgr, image_suffix, jpeg_quality, original)
        with self._lock:
            self._complete()
            with self._changing():
                new = self._record(new, class_names, image_suffix, encoded, file_prefix)
            self._complete()
            return self._folder.path / self._format.image_name(new)

    def check(
        self,
        image_bgr: npt.NDArray[np.uint8],
        boxes: Sequence[Box],
        class_names: Sequence[str],
        split: SplitName | Mapping[SplitName, float],
        image_suffix: str = ".jpg",
        source_name: str = "",
    ) -> None:
        """Checks whether `add` can add an image now. The image is neither encoded nor added.

        Raises:
            DatasetError, OSError: see `add`.
        """
        check_size(image_bgr, image_suffix)
        new = _unrecorded(image_bgr, boxes, split, source_name)
        with self._lock:
            self._complete()
            with suppress(_NotWantedError), self._changing():
                self._record(new, class_names, image_suffix, b"")
                raise _NotWantedError

    def discard(self, image_bgr: npt.NDArray[np.uint8]) -> None:
        """Removes an image if the dataset has it.

        Raises:
            DatasetError, OSError: see `add`.
        """
        with self._lock:
            self._complete()
            old = self._records.find(content_of(image_bgr))
            if old is None:
                return
            with self._changing():
                self._records.remove(old.content)
                self._write(Change(old, None, b"", has_new_classes=False))
            self._complete()

    def flush(self, then: Callable[[], None] = lambda: None) -> None:
        """Writes annotations and captions that wait, then calls `then` before others add more."""
        with self._lock:
            self._complete(may_wait=False)
            then()

    def _make_hidden_folder(self) -> Path:
        hidden = self._folder.checked(HIDDEN_FOLDER)
        if len(os.fsencode(os.path.realpath(hidden / RECORDS))) > _MAX_PATH_BYTES:
            raise DatasetError("the path of the target directory is too long; choose a shorter one")
        hidden.mkdir(parents=True, exist_ok=True)
        for path in hidden.iterdir():
            self._folder.checked(f"{HIDDEN_FOLDER}/{path.name}")
        self._folder.checked(STAGED_FOLDER).mkdir(exist_ok=True)
        return hidden

    def _open(self) -> None:
        self._schema = Schema(self._folder, self._records, self._format_name, self._class_names)
        self._schema.check()
        self._annotations = CocoFiles(self._folder, self._records, SPLITS)  # of other formats: none
        self._format = make_format(self._format_name, self._folder, self._records, self._annotations)
        image_folder = "images/" if self._format_name == "yolo" else ""
        self._captions = CaptionFiles(self._folder, self._records, image_folder)
        self._changes = FileChanges(self._folder, self._records)
        self._changes.sweep()
        is_coco = self._format_name == "coco"
        upgrade(self._records, self._folder, self._annotations if is_coco else None, SPLITS)
        if is_coco:
            self._annotations.find_changed()
        changed_at = self._changed_at()
        self._complete(may_wait=changed_at is not None and self._late_writes.are_taken_on(changed_at))

    def _record(
        self, new: ImageRecord, class_names: Sequence[str], suffix: str, encoded: bytes, prefix: str = ""
    ) -> ImageRecord:
        """Records an image and the files that it needs. Called inside `Records.change`."""
        self._schema.claim()
        before = self._records.class_names()
        known = self._schema.add_classes(class_names)
        old = self._records.find(new.content)
        new = replace(
            new,
            file_name=self._file_stem(new, prefix) + suffix,
            class_ids=tuple(known.index(name) for name in class_names),
        )
        new = self._records.put(new)
        self._write(Change(old, new, encoded, has_new_classes=len(known) > len(before)))
        return new

    def _file_stem(self, new: ImageRecord, prefix: str) -> str:
        if self._records.setting("file_names") is None:  # written by release 0.1.0
            return prefix + new.content
        stem = prefix + file_stem(new.source_name, new.content)
        return f"{stem}-{new.content}" if self._records.is_taken(stem, new.content) else stem

    def _write(self, change: Change) -> None:
        """Writes files that the current transaction puts in place, and names those that it removes."""
        files = self._format.files(change)
        self._captions.change(change.old, change.new)
        for name, content in files.items():
            self._changes.put(name, content)
        for name in self._places(change):
            if name not in files and os.path.lexists(self._folder.path / name):
                self._changes.remove(name)

    def _places(self, change: Change) -> Iterator[str]:
        """Where files of an image may be. Records that were put back from an older copy do not know all."""
        records = {record.file_name: record for record in (change.old, change.new) if record is not None}
        for record in records.values():
            for split in SPLITS:
                yield from self._format.names(replace(record, split=split))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with self._records.change():
                yield
        except BaseException:
            self._changes.sweep()
            raise

    def _complete(self, may_wait: bool = True) -> None:
        """Does what is recorded and not done yet; annotations and captions of a large dataset may wait."""
        done = self._changes.put_in_place()
        if self._are_due(done, may_wait):
            with self._changing():
                for name, content in (self._annotations.files() | self._captions.files()).items():
                    self._changes.put(name, content)
            done += self._changes.put_in_place()
        if self._changed_at(without=done) is None:
            done += self._changes.remove_files()
        if done:
            self._note_done(done)

    def _changed_at(self, without: Sequence[str] = ()) -> float | None:
        """When the first change was recorded that is not in the annotations and captions yet."""
        times = (self._annotations.changed_at(without), self._captions.changed_at(without))
        return min((time for time in times if time is not None), default=None)

    def _are_due(self, done: Sequence[str], may_wait: bool) -> bool:
        """Whether annotations must be written now; if not, they are up to date or it is done later."""
        if self._changed_at(without=done) is None:
            return False
        if not may_wait or (self._annotations.is_quick and self._captions.is_quick):
            return True
        write = partial(_flush, self._folder.path.resolve(), self._format_name)
        return not self._late_writes.take_on(write)

    def _note_done(self, names: Sequence[str]) -> None:
        try:
            with self._records.change():
                self._changes.forget(names)
                self._annotations.have_been_written(names)
                self._captions.have_been_written(names)
        except DatasetError as error:  # a full disk; it is harmless to do the same again
            logger.warning("%s: finished changes are still listed: %s", self._folder.path, error)


def _flush(folder: Path, format: DatasetFormatName, then: Callable[[], None]) -> None:
    if (folder / HIDDEN_FOLDER / RECORDS).exists():  # else it was removed meanwhile
        with Dataset(folder, format) as dataset:
            dataset.flush(then)


class _NotWantedError(Exception):
    """Undoes a change that was only tried."""


def _unrecorded(
    image_bgr: npt.NDArray[np.uint8],
    boxes: Sequence[Box],
    split: SplitName | Mapping[SplitName, float],
    source_name: str,
    details: Sequence[Detail] = (),
    caption: str = "",
) -> ImageRecord:
    """The record of an image, but for what the records decide: its id, file name and class ids."""
    content = content_of(image_bgr)
    height, width = image_bgr.shape[:2]
    return ImageRecord(
        id=0,
        content=content,
        split=split if isinstance(split, str) else split_of(content, split),
        file_name="",
        width=width,
        height=height,
        boxes=tuple(boxes),
        class_ids=(),
        source_name=source_name.encode(errors="replace").decode(),  # file names may have lone surrogates
        details=tuple(details),
        caption=caption.encode(errors="replace").decode(),
    )
