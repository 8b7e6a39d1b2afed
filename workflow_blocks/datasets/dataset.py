"""Adds images to a dataset on disk. Threads and processes may share one."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from workflow_blocks.datasets.class_names import check_class_name
from workflow_blocks.datasets.coco_file import CocoFiles
from workflow_blocks.datasets.earlier_release import upgrade
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.file_changes import HIDDEN_FOLDER, STAGED_FOLDER, DatasetFolder, FileChanges
from workflow_blocks.datasets.formats import (
    SPLITS,
    Change,
    DatasetFormatName,
    SplitName,
    make_format,
)
from workflow_blocks.datasets.image_files import encode, file_stem
from workflow_blocks.datasets.late_writes import LateWrites
from workflow_blocks.datasets.records import Box, ImageRecord, Records
from workflow_blocks.image_hash import image_hash

RECORDS = "records.sqlite"
_LOCK_SECONDS = 60

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
                records, or it is damaged, or a link leads out of it.
            OSError: the folder cannot be written.
        """
        for name in class_names or ():
            check_class_name(name)
        self._folder = DatasetFolder(folder)
        self._format_name = format
        self._fixed_classes = None if class_names is None else list(class_names)
        hidden = self._make_hidden_folder()
        self._lock = FileLock(hidden / "lock", timeout=_LOCK_SECONDS)
        self._late_writes = LateWrites(hidden / "late_writes.lock")
        with self._lock:
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

        Returns:
            The path of the image. When the call returns, the image is part of the records, even if the
            process is killed. Its annotations are in the dataset's files too, but those of a large COCO
            dataset up to two seconds later.

        Raises:
            DatasetError: a class is not one of the dataset's fixed classes, a file of the dataset was edited,
                or the records are damaged or cannot be written.
            OSError: it cannot be written.

        If it raises, the dataset is as it was before, or as it is after; the next call completes it.
        """
        content = _content_of(image_bgr)
        encoded = encode(image_bgr, image_suffix, jpeg_quality, original)
        height, width = image_bgr.shape[:2]
        new = ImageRecord(
            id=0,
            content=content,
            split=split if isinstance(split, str) else split_of(content, split),
            file_name="",
            width=width,
            height=height,
            boxes=tuple(boxes),
            class_ids=(),
            source_name="".join(c if c.isprintable() else "_" for c in source_name),
        )
        with self._lock:
            self._complete()
            with self._changing():
                new = self._record(new, class_names, image_suffix, encoded)
            self._complete()
            return self._folder.path / self._format.image_name(new)

    def discard(self, image_bgr: npt.NDArray[np.uint8]) -> None:
        """Removes an image if the dataset has it.

        Raises:
            DatasetError, OSError: see `add`.
        """
        with self._lock:
            self._complete()
            old = self._records.find(_content_of(image_bgr))
            if old is None:
                return
            with self._changing():
                self._records.remove(old.content)
                self._write(Change(old, None, b"", has_new_classes=False))
            self._complete()

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Checks, before an image is added, whether it may have boxes of some classes.

        Raises:
            DatasetError: see `add`.
        """
        for name in class_names:
            check_class_name(name)
            if self._fixed_classes is not None and name not in self._fixed_classes:
                raise _unknown_class(name)

    def flush(self, then: Callable[[], None] = lambda: None) -> None:
        """Writes the annotations that are not written yet, then calls `then` before others add more."""
        with self._lock:
            self._complete(may_wait=False)
            then()

    def _make_hidden_folder(self) -> Path:
        hidden = self._folder.checked(HIDDEN_FOLDER)
        hidden.mkdir(parents=True, exist_ok=True)
        for path in hidden.iterdir():
            self._folder.checked(f"{HIDDEN_FOLDER}/{path.name}")
        self._folder.checked(STAGED_FOLDER).mkdir(exist_ok=True)
        return hidden

    def _open(self) -> None:
        self._check_format()
        self._check_classes()
        self._annotations = CocoFiles(self._folder, self._records, SPLITS)  # of other formats: none
        self._format = make_format(self._format_name, self._folder, self._records, self._annotations)
        self._changes = FileChanges(self._folder, self._records)
        self._changes.sweep()
        is_coco = self._format_name == "coco"
        upgrade(self._records, self._folder, self._annotations if is_coco else None, SPLITS)
        if is_coco:
            self._annotations.find_changed()
        changed_at = self._annotations.changed_at()
        self._complete(may_wait=changed_at is not None and self._late_writes.are_taken_on(changed_at))

    def _check_format(self) -> None:
        found = self._records.setting("format")
        if found is None:
            self._check_empty()
        elif found != self._format_name:
            raise DatasetError(
                f"{self._folder.path} holds a dataset in the format {found!r}, not {self._format_name!r}; "
                "choose another target directory"
            )

    def _check_empty(self) -> None:
        """Refuses a dataset of others, or one that was copied without its records."""
        for name in ("data.yaml", *SPLITS):
            path = self._folder.path / name
            if self._folder.leads_out(name):
                continue  # an error when it is written
            if path.is_file() or any(not found.name.startswith(".") for found in path.glob("**/*.*")):
                raise DatasetError(
                    f"{path} exists, but the dataset's records (the folder {HIDDEN_FOLDER}) do not; copy "
                    "that folder too, or choose another target directory"
                )

    def _check_classes(self) -> None:
        known = self._records.class_names()
        fixed = self._fixed_classes
        if fixed is not None and fixed[: len(known)] != known:
            raise DatasetError(
                f"{self._folder.path} has the classes {known} already, and `class_names` is {fixed}; "
                "start the list with those, or choose another target directory"
            )

    def _record(
        self, new: ImageRecord, class_names: Sequence[str], suffix: str, encoded: bytes
    ) -> ImageRecord:
        """Records an image and the files that it needs. Called inside `Records.change`."""
        self._claim()
        before = self._records.class_names()
        known = self._add_classes(class_names)
        old = self._records.find(new.content)
        new = replace(
            new,
            file_name=self._file_stem(new) + suffix,
            class_ids=tuple(known.index(name) for name in class_names),
        )
        new = self._records.put(new)
        self._write(Change(old, new, encoded, has_new_classes=len(known) > len(before)))
        return new

    def _claim(self) -> None:
        """Makes the folder a dataset of this format with these classes, if no other writer did."""
        self._check_format()
        self._check_classes()
        if self._records.setting("format") is None:
            self._records.set_setting("format", self._format_name)
            self._records.set_setting("file_names", "of_source")

    def _add_classes(self, names: Sequence[str]) -> list[str]:
        new = list(dict.fromkeys(names if self._fixed_classes is None else self._fixed_classes))
        for name in new:
            check_class_name(name)
        known = self._records.add_classes(new)
        for name in names:
            if name not in known:
                raise _unknown_class(name)
        return known

    def _file_stem(self, new: ImageRecord) -> str:
        if self._records.setting("file_names") is None:  # written by release 0.1.0
            return new.content
        stem = file_stem(new.source_name, new.content)
        return f"{stem}-{new.content}" if self._records.is_taken(stem, new.content) else stem

    def _write(self, change: Change) -> None:
        """Writes files that the current transaction puts in place, and names those that it removes."""
        files = self._format.files(change)
        for name, content in files.items():
            self._changes.put(name, content)
        for name in self._format.names(change.old) if change.old else ():
            if name not in files:
                self._changes.remove(name)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with self._records.change():
                yield
        except BaseException:
            self._changes.sweep()
            raise

    def _complete(self, may_wait: bool = True) -> None:
        """Does what is recorded and not done yet; the annotations of a large COCO dataset may wait."""
        done = self._changes.put_in_place()
        if self._are_due(done, may_wait):
            with self._changing():
                for name, content in self._annotations.files().items():
                    self._changes.put(name, content)
            done += self._changes.put_in_place()
        if self._annotations.changed_at(without=done) is None:
            done += self._changes.remove_files()
        if done:
            self._note_done(done)

    def _are_due(self, done: Sequence[str], may_wait: bool) -> bool:
        """Whether annotations must be written now; if not, they are up to date or it is done later."""
        if self._annotations.changed_at(without=done) is None:
            return False
        if not may_wait or self._annotations.is_quick:
            return True
        return not self._late_writes.take_on(partial(_flush, self._folder.path.resolve()))

    def _note_done(self, names: Sequence[str]) -> None:
        try:
            with self._records.change():
                self._changes.forget(names)
                self._annotations.have_been_written(names)
        except DatasetError as error:  # a full disk; it is harmless to do the same again
            logger.warning("%s: finished changes are still listed: %s", self._folder.path, error)


def _flush(folder: Path, then: Callable[[], None]) -> None:
    if (folder / HIDDEN_FOLDER / RECORDS).exists():  # else it was removed meanwhile
        with Dataset(folder, "coco") as dataset:
            dataset.flush(then)


def _unknown_class(name: str) -> DatasetError:
    return DatasetError(f"the class {name!r} is not in `class_names`; add it there")


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
