"""Datasets that the playground's page puts together: image by image, then one archive to download."""

import secrets
import shutil
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from threading import Lock

import numpy as np

from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.details import Detail
from workflow_blocks.datasets.file_changes import HIDDEN_FOLDER
from workflow_blocks.datasets.formats import DatasetFormatName, SplitName
from workflow_blocks.datasets.records import Box
from workflow_blocks.image_files import decode_image

MAX_DATASETS = 8  # that are not finished
MAX_BYTES = 20 * 1024**3  # of all datasets together, as their images were sent
MIN_FREE_BYTES = 1024**3  # what stays free on the disk
# After this time without a request, the page that makes a dataset counts as gone.
ABANDONED_SECONDS = 300
FORGOTTEN_SECONDS = 3600


class UnknownDatasetError(Exception):
    """There is no such dataset, or not any more."""


class TooManyDatasetsError(Exception):
    """Too many datasets are being put together at once."""


class NoRoomError(Exception):
    """The datasets take too much room on the disk."""


class _Started:
    """One dataset. Its folder is beside its archive; when it is finished, only the archive is left."""

    def __init__(self, folder: Path, format: DatasetFormatName, class_names: Sequence[str]) -> None:
        self.folder = folder
        self.format = format
        self.lock = Lock()
        self.n_bytes = 0
        self.is_finished = False
        self.used_at = time.monotonic()
        self.dataset = Dataset(folder / "dataset", format, class_names)

    @property
    def archive(self) -> Path:
        return self.folder / "dataset.zip"

    @property
    def idle_seconds(self) -> float:
        return time.monotonic() - self.used_at

    def finish(self) -> None:
        """Writes the archive. The caller holds the lock."""
        root = self.folder / "dataset"
        self.dataset.flush()
        with zipfile.ZipFile(self.archive, "w") as archive:
            for file in sorted(root.rglob("*")):
                inside = file.relative_to(root)
                if file.is_file() and inside.parts[0] != HIDDEN_FOLDER:
                    archive.write(file, inside)
        self.is_finished = True
        self.dataset.close()
        shutil.rmtree(root, ignore_errors=True)

    def remove(self) -> None:
        with self.lock:
            self.dataset.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class DatasetsOfPage:
    """All datasets that are being put together, in a temporary folder. Threads may share it.

    Finished datasets stay for a while, so that a browser can continue a download, but hold up no others.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="playground-")
        self._started: dict[str, _Started] = {}
        self._lock = Lock()

    def start(self, format: DatasetFormatName, class_names: Sequence[str]) -> str:
        """Starts an empty dataset and returns its id.

        Raises:
            TooManyDatasetsError: there are `MAX_DATASETS` that somebody works on.
            DatasetError: no file can hold one of the class names.
        """
        with self._lock:
            gone = [name for name, one in self._started.items() if one.idle_seconds > FORGOTTEN_SECONDS]
            busy = {
                name: one.idle_seconds
                for name, one in self._started.items()
                if name not in gone and not one.is_finished
            }
            if len(busy) >= MAX_DATASETS:
                name = max(busy, key=lambda name: busy[name])
                if busy[name] <= ABANDONED_SECONDS:
                    raise TooManyDatasetsError(
                        f"{MAX_DATASETS} datasets are being put together on this server right now; "
                        "try again when one of them is finished"
                    )
                gone.append(name)
            removed = [self._started.pop(name) for name in gone]
            name = secrets.token_urlsafe(16)
            self._started[name] = _Started(Path(self._folder.name) / name, format, class_names)
        for one in removed:
            one.remove()
        return name

    def add(
        self,
        name: str,
        image: bytes,
        file_name: str,
        boxes: Sequence[Box],
        class_names: Sequence[str],
        details: Sequence[Detail],
        shares: Mapping[SplitName, float],
    ) -> str:
        """Adds an image; `boxes` are corners in its pixels, clipped to it, each with a class and details.

        Returns:
            The split of the image.

        Raises:
            UnknownDatasetError: it is not there any more, or finished.
            NoRoomError: the datasets have `MAX_BYTES`, or the disk is full.
            ImageFileError: the image cannot be decoded.
            DatasetError, OSError: it cannot be written.
        """
        one = self._get(name)
        image_bgr = decode_image(image)
        height, width = image_bgr.shape[:2]
        corners = np.clip(np.array(boxes, np.float64).reshape(-1, 4), 0, [width, height, width, height])
        visible = [x_max > x_min and y_max > y_min for x_min, y_min, x_max, y_max in corners.tolist()]
        self._make_room(len(image))
        with one.lock:
            if one.is_finished:
                raise UnknownDatasetError("this dataset is finished; make a new one")
            path = one.dataset.add(
                image_bgr,
                [tuple(corner) for corner in corners[visible].tolist()],
                list(compress(class_names, visible)),
                shares,
                source_name=file_name,
                original=image,
                details=list(compress(details, visible)),
            )
            one.n_bytes += len(image)
        return path.relative_to(one.folder / "dataset").parts[0]

    def archive(self, name: str) -> tuple[Path, DatasetFormatName]:
        """A ZIP file of the dataset, and its format.

        Nothing can be added to the dataset after that.

        Raises:
            UnknownDatasetError: it is not there any more.
            NoRoomError: the disk is full.
            DatasetError, OSError: it cannot be written.
        """
        one = self._get(name)
        with one.lock:
            if not one.is_finished:
                self._make_room(one.n_bytes, n_new_bytes=0)
                one.finish()
        one.used_at = time.monotonic()
        return one.archive, one.format

    def remove(self, name: str) -> None:
        """Removes a dataset, if it is there."""
        with self._lock:
            one = self._started.pop(name, None)
        if one is not None:
            one.remove()

    def close(self) -> None:
        """Removes all datasets."""
        for name in list(self._started):
            self.remove(name)
        self._folder.cleanup()

    def _make_room(self, n_bytes: int, n_new_bytes: int | None = None) -> None:
        """Removes finished datasets, the oldest first, until so many bytes can be written.

        Args:
            n_bytes: to write.
            n_new_bytes: how many of them are of no dataset yet; by default all.

        Raises:
            NoRoomError: they cannot.
        """
        while (
            problem := self._lack_of_room(n_bytes, n_bytes if n_new_bytes is None else n_new_bytes)
        ) is not None:
            with self._lock:
                finished = {name: one for name, one in self._started.items() if one.is_finished}
                if not finished:
                    raise NoRoomError(problem)
                oldest = self._started.pop(max(finished, key=lambda name: finished[name].idle_seconds))
            oldest.remove()

    def _lack_of_room(self, n_bytes: int, n_new_bytes: int) -> str | None:
        with self._lock:
            total = sum(one.n_bytes for one in self._started.values())
        if total + n_new_bytes > MAX_BYTES:
            return f"the datasets on this server are larger than {MAX_BYTES:,} bytes; make a smaller one"
        if shutil.disk_usage(self._folder.name).free < n_bytes + MIN_FREE_BYTES:
            return f"the server's disk is full; free some room in {tempfile.gettempdir()}"
        return None

    def _get(self, name: str) -> _Started:
        with self._lock:
            one = self._started.get(name)
        if one is None:
            raise UnknownDatasetError("the server does not have this dataset any more; make it again")
        one.used_at = time.monotonic()
        return one
