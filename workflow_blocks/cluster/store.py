"""The output folder of a job: local, or on object storage. Files are either complete or absent."""

import uuid
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from workflow_blocks.cluster.addresses import AddressError, place_of, without_secrets
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.retries import SECONDS, retrying

# A write that fails ends the job, so it waits longer for storage than a read does.
_WRITE_SECONDS = 5 * SECONDS


class Store:
    """A folder of files. It can be sent to other machines, and finds its filesystem again there."""

    def __init__(self, address: str) -> None:
        """Writes nothing.

        Raises:
            ClusterError: the address cannot be used.
        """
        try:
            place = place_of(address)
        except AddressError as error:
            raise ClusterError(str(error)) from error
        # Workers may have another current directory.
        self.address = place.path if place.is_local else address.rstrip("/")

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, replacing any file there.

        Raises:
            OSError: it cannot be written.
        """
        retrying(lambda: self._write(name, [content]), _WRITE_SECONDS)

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """The same for a file that may not fit into memory; it is not written again if storage is away.

        Raises:
            OSError: it cannot be written.
        """
        self._write(name, pieces)

    def write_table(self, name: str, table: pa.Table) -> None:
        """The same for a Parquet file."""
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        self.write(name, buffer.getvalue())

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is no such file.

        Raises:
            OSError: it cannot be read.
        """
        place = place_of(self.address)

        def read() -> bytes:
            with place.filesystem.open_input_file(f"{place.path}/{name}") as file:
                return bytes(file.read())

        try:
            return retrying(read)
        except FileNotFoundError:
            return None

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file.

        Raises:
            OSError: it cannot be read.
        """
        place = place_of(self.address)
        return retrying(
            lambda: pq.read_table(f"{place.path}/{name}", filesystem=place.filesystem, columns=columns)
        )

    def read_row_group(self, name: str, number: int) -> pa.Table:
        """One row group of a Parquet file.

        Raises:
            OSError: it cannot be read.
        """
        place = place_of(self.address)

        def read() -> pa.Table:
            with pq.ParquetFile(f"{place.path}/{name}", filesystem=place.filesystem) as file:
                return file.read_row_group(number)

        return retrying(read)

    def exists(self, name: str) -> bool:
        place = place_of(self.address)
        info = retrying(lambda: place.filesystem.get_file_info(f"{place.path}/{name}"))
        return bool(info.type == FileType.File)

    def names(self, folder: str = "") -> Iterator[str]:
        """The names of the files and folders in a folder; nothing if it is not there.

        Raises:
            OSError: it cannot be listed.
        """
        place = place_of(self.address)
        selector = FileSelector(f"{place.path}/{folder}".rstrip("/"), allow_not_found=True)
        for info in retrying(lambda: place.filesystem.get_file_info(selector)):
            yield info.base_name

    def remove(self, name: str) -> None:
        """Removes a file, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        place = place_of(self.address)
        if self.exists(name):
            retrying(lambda: place.filesystem.delete_file(f"{place.path}/{name}"))

    def remove_folder(self, folder: str) -> None:
        """Removes a folder and all that is in it, if it is there.

        Raises:
            OSError: it cannot be removed.
        """
        place = place_of(self.address)
        path = f"{place.path}/{folder}"
        try:
            retrying(lambda: place.filesystem.delete_dir_contents(path, missing_dir_ok=True))
            if place.has_folders:
                place.filesystem.delete_dir(path)
        except FileNotFoundError:
            pass

    def check_writable(self) -> None:
        """Writes a small file and removes it.

        Raises:
            ClusterError: that fails.
        """
        name = f".can_write-{uuid.uuid4().hex}"
        try:
            self._write(name, [b""])
            self.remove(name)
        except Exception as error:  # fsspec's filesystems raise errors of their own
            reason = without_secrets(getattr(error, "strerror", None) or str(error))
            raise ClusterError(
                f"{self.address} cannot be written: {reason}; give another --output"
            ) from error

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        place = place_of(self.address)
        path = f"{place.path}/{name}"
        if place.has_folders:
            place.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        if not place.is_local:
            # An object appears when it is closed.
            with place.filesystem.open_output_stream(path) as file:
                for piece in pieces:
                    file.write(piece)
            return
        folder, _, file_name = path.rpartition("/")
        temporary = f"{folder}/.{file_name}-{uuid.uuid4().hex}.part"
        try:
            with place.filesystem.open_output_stream(temporary) as file:
                for piece in pieces:
                    file.write(piece)
            place.filesystem.move(temporary, path)
        except BaseException:
            if place.filesystem.get_file_info(temporary).type == FileType.File:
                place.filesystem.delete_file(temporary)
            raise
