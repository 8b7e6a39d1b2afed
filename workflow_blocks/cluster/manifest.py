"""The list of a job's images, in parts: each part becomes one file of rows.

Parts are fixed when a job starts. So it is known what is done from the names of the files of rows alone, and
a part that is written twice, by a worker and by another that took its place, still gives the same rows once.
"""

import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from workflow_blocks.cluster.addresses import (
    AddressError,
    Place,
    address_in,
    has_credentials,
    place_of,
    without_credentials,
    without_secrets,
)
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.retries import retrying
from workflow_blocks.cluster.store import Store
from workflow_blocks.running.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES

URI_COLUMN = "uri"
FOLDER = "job/manifest"
SCHEMA = pa.schema([("id", pa.string()), ("uri", pa.string()), ("error", pa.string())])
# A file has this many parts, each in a row group of its own, so that millions of images need few files.
PARTS_PER_FILE = 64
MAX_PART_ROWS = 1024
_PARTS_PER_WORKER = 16
_ROWS_AT_ONCE = 10_000
# At the start somebody waits for the answer.
_START_SECONDS = 15.0


@dataclass(frozen=True)
class Manifest:
    """How many images a job has, in parts of `part_rows` images; the last part may have fewer.

    Attributes:
        n_images: without repeats.
        part_rows: images of a part.
        n_equal: addresses that were left out because they were given before.
        n_skipped: files of the input folder that are no images.
    """

    n_images: int
    part_rows: int
    n_equal: int
    n_skipped: int

    @property
    def n_parts(self) -> int:
        return -(-self.n_images // self.part_rows)

    def rows_of(self, part: int) -> int:
        return min(self.part_rows, self.n_images - part * self.part_rows)


def part_rows_for(n_images: int, n_workers: int, batch_size: int) -> int:
    """How many images a part has: whole batches, and enough parts for all workers to end together."""
    wanted = n_images / (n_workers * _PARTS_PER_WORKER)
    batches = max(1, min(round(wanted / batch_size), MAX_PART_ROWS // batch_size))
    return batches * batch_size


@dataclass(frozen=True)
class Images:
    """The addresses of an input.

    Attributes:
        n: how many, repeats included.
        uris: gives them, as often as it is called.
        is_table: whether they are of a table, which may hold an address twice.
        n_skipped: files of a folder that are no images.
    """

    n: int
    uris: Callable[[], Iterable[str]]
    is_table: bool
    n_skipped: int = 0


def find_images(source: str) -> Images:
    """Lists the images of an input.

    Args:
        source: a folder, a prefix on object storage, an image, or a Parquet file with the column `uri`.

    Raises:
        ClusterError: the input cannot be read, or has no images.
    """
    try:
        place = place_of(source)
        images = _images_of(source, place)
    except AddressError as error:
        raise ClusterError(str(error)) from error
    except FileNotFoundError as error:
        raise ClusterError(f"{source} does not exist; give a folder, a prefix or a Parquet file") from error
    except ClusterError:
        raise
    except Exception as error:  # fsspec's filesystems raise errors of their own
        reason = without_secrets(getattr(error, "strerror", None) or str(error))
        raise ClusterError(f"{source} cannot be read: {reason}") from error
    if images.n == 0:
        raise ClusterError(f"{source} is empty" if images.is_table else _no_images(source))
    return images


def write_manifest(store: Store, images: Images, n_workers: int, batch_size: int) -> Manifest:
    """Writes the list of images into a job's folder, each address once.

    Args:
        store: the job's folder.
        images: the input's.
        n_workers: how many workers share the images at most.
        batch_size: images of one run of the engine.

    Raises:
        OSError: it cannot be written.
    """
    repeated = _repeated_hashes(images) if images.is_table else frozenset()
    part_rows = part_rows_for(images.n, n_workers, batch_size)
    writer = _PartWriter(store, part_rows)
    seen: set[str] = set()
    for uri in images.uris():
        if _hash(uri) in repeated:
            if uri in seen:
                continue
            seen.add(uri)
        writer.add(uri)
    writer.close()
    return Manifest(writer.n_images, part_rows, images.n - writer.n_images, images.n_skipped)


def read_part(store: Store, part: int) -> pa.Table:
    """The rows of one part, in `SCHEMA`; `error` is set if an image cannot be read at all.

    Raises:
        OSError: it cannot be read.
    """
    return store.read_row_group(_file_of(part // PARTS_PER_FILE), part % PARTS_PER_FILE)


def id_of(uri: str) -> str:
    """32 hexadecimal digits that depend on an address alone."""
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _images_of(source: str, place: Place) -> Images:
    info = retrying(lambda: place.filesystem.get_file_info(place.path), _START_SECONDS)
    if info.type == FileType.NotFound:
        raise FileNotFoundError(source)
    if info.type == FileType.File:
        suffix = Path(place.path).suffix.lower()
        if suffix == ".parquet":
            return _images_in_tables(source, place, [place.path])
        _refuse_video(source, suffix)
        return Images(1, lambda: [address_in(source, place.path)], is_table=False)
    if place.is_local:
        n_images, n_others = _count_local(place.path)
        if n_images == 0 and (
            tables := [entry.path for entry in _files_in(place.path) if _is_table(entry.path)]
        ):
            return _images_in_tables(source, place, tables)
        return Images(n_images, lambda: map(_uri_of_local, _local_images(place.path)), False, n_others)
    selector = FileSelector(place.path, recursive=True)
    found = [
        info.path
        for info in retrying(lambda: place.filesystem.get_file_info(selector), _START_SECONDS)
        if info.type == FileType.File
    ]
    paths = sorted(filter(_is_image, found))
    if not paths and (tables := sorted(filter(_is_table, found))):
        return _images_in_tables(source, place, tables)
    return Images(
        len(paths), lambda: (address_in(source, path) for path in paths), False, len(found) - len(paths)
    )


def _refuse_video(source: str, suffix: str) -> None:
    if suffix in VIDEO_SUFFIXES:
        raise ClusterError(
            f"{source} is a video; a cluster processes images. Use workflow-blocks run for videos"
        )


def _no_images(source: str) -> str:
    return f"no image ({', '.join(sorted(IMAGE_SUFFIXES))}) in {source}"


def _is_image(path: str) -> bool:
    name = path.rpartition("/")[2]
    return not name.startswith("._") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def _files_in(folder: str) -> Iterator[os.DirEntry[str]]:
    """The files in a folder and its folders, sorted by name in each. Links to folders are not followed."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    folders = []
    for entry in entries:
        if not entry.is_dir():
            yield entry
        elif not entry.is_symlink():
            folders.append(entry.path)
    for path in folders:
        yield from _files_in(path)


def _is_local_image(entry: os.DirEntry[str]) -> bool:
    """Pipes and devices are none, whatever their name; a link to a missing file is one, and fails."""
    return _is_image(entry.name) and (entry.is_file() or not os.path.exists(entry.path))  # noqa: PTH110


def _local_images(folder: str) -> Iterator[str]:
    return (entry.path for entry in _files_in(folder) if _is_local_image(entry))


def _count_local(folder: str) -> tuple[int, int]:
    """How many images, and how many other files."""
    n_images = n_files = 0
    for entry in _files_in(folder):
        n_files += 1
        n_images += _is_local_image(entry)
    return n_images, n_files - n_images


def _is_table(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith(".parquet") and not name.startswith((".", "_"))


def _uri_of_local(path: str) -> str:
    return Path(path).as_uri()


def _images_in_tables(source: str, place: Place, paths: Sequence[str]) -> Images:
    """The addresses in Parquet files, which are read as one table."""
    n = 0
    for path in paths:
        with pq.ParquetFile(path, filesystem=place.filesystem) as file:
            _check_columns(source if len(paths) == 1 else path, file.schema_arrow)
            n += file.metadata.num_rows

    def uris() -> Iterator[str]:
        for path in paths:
            with pq.ParquetFile(path, filesystem=place.filesystem) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[URI_COLUMN]):
                    yield from (uri or "" for uri in batch.column(0).to_pylist())

    return Images(n, uris, is_table=True)


def _check_columns(table: str, columns: pa.Schema) -> None:
    if URI_COLUMN not in columns.names:
        raise ClusterError(
            f"{table} has no column `{URI_COLUMN}`; it has {', '.join(columns.names) or 'none'}. "
            f"Rename the column with the images' addresses to `{URI_COLUMN}`"
        )
    kind = columns.field(URI_COLUMN).type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if values not in (pa.string(), pa.large_string(), pa.string_view()):
        raise ClusterError(f"the column `{URI_COLUMN}` of {table} is {kind}; give text")


def _hash(uri: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


def _repeated_hashes(images: Images) -> frozenset[int]:
    """Hashes that several addresses have: eight bytes of memory for each address, not its text."""
    hashes = array("Q", map(_hash, images.uris()))
    values = np.sort(np.frombuffer(hashes, np.uint64))
    return frozenset(map(int, values[1:][values[1:] == values[:-1]]))


class _PartWriter:
    """Collects addresses into parts, and parts into files."""

    def __init__(self, store: Store, part_rows: int) -> None:
        self._store = store
        self._part_rows = part_rows
        self._rows: list[dict[str, str | None]] = []
        self._n_files = 0
        self.n_images = 0

    def add(self, uri: str) -> None:
        # The address with credentials is never written, so it cannot be read either.
        shown, error = uri, None
        if has_credentials(uri):
            shown = without_credentials(uri)
            error = "the address has credentials in it; give them to the workers as a profile or a role"
        self._rows.append({"id": id_of(uri), "uri": shown, "error": error})
        self.n_images += 1
        if len(self._rows) == self._part_rows * PARTS_PER_FILE:
            self._write()

    def close(self) -> None:
        if self._rows:
            self._write()

    def _write(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, row_group_size=self._part_rows, compression="zstd")
        self._store.write(_file_of(self._n_files), buffer.getvalue())
        self._n_files += 1
        self._rows = []


def is_manifest_file(name: str) -> bool:
    """Whether a file of this name, without its folder, is one of a manifest."""
    return re.fullmatch(r"\d{6,}\.parquet", name) is not None


def _file_of(number: int) -> str:
    return f"{FOLDER}/{number:06}.parquet"
