"""Files of a job: whole or absent, and what an outage of the storage does."""

import os
import threading

import pyarrow as pa
import pytest

from tests.cluster.conftest import BUCKET
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.fetch import FetchError, fetch
from workflow_blocks.cluster.store import Store


@pytest.fixture(params=["local", "s3", "fsspec"])
def store(request, tmp_path):
    if request.param == "local":
        return Store(str(tmp_path / "out"))
    if request.param == "s3":
        request.getfixturevalue("storage")
        return Store(f"s3://{BUCKET}/{tmp_path.name}")
    return Store(f"memory://bucket/{tmp_path.name}")


def test_files_are_written_replaced_listed_and_removed(store):
    table = pa.table({"a": [1, 2]})

    store.check_writable()
    store.write("rows/one", b"1")
    store.write("rows/one", b"2")
    store.write_table("rows/two.parquet", table)

    assert store.read("rows/one") == b"2"
    assert store.read_table("rows/two.parquet") == table
    assert sorted(store.names("rows")) == ["one", "two.parquet"]
    assert store.exists("rows/one")
    store.remove("rows/one")
    store.remove("rows/one")
    assert not store.exists("rows/one")
    assert store.read("rows/one") is None
    store.remove_folder("rows")
    store.remove_folder("rows")
    assert list(store.names("rows")) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("-")

    with pytest.raises(ClusterError, match="cannot be written"):
        Store(str(tmp_path / "file" / "out")).check_writable()


def test_a_bucket_that_cannot_be_written_is_refused(storage):
    with pytest.raises(ClusterError, match="cannot be written"):
        Store("s3://no-such-bucket/out").check_writable()


def test_an_outage_of_some_seconds_is_waited_for(storage):
    store = Store(f"s3://{BUCKET}/outage")
    store.write("before", b"1")
    storage.stop()
    back = threading.Timer(3, storage.start)
    back.start()
    try:
        store.write("during", b"2")
        assert fetch(f"s3://{BUCKET}/outage/before") == b"1"
    finally:
        back.join()

    assert store.read("during") == b"2"


def test_a_lasting_outage_is_an_error(storage):
    storage.stop()
    try:
        with pytest.raises(FetchError, match="unreadable"):
            fetch(f"s3://{BUCKET}/outage/before", seconds=1)
    finally:
        storage.start()


@pytest.mark.parametrize("name", ["pipe.jpg", "device.jpg"])
def test_a_pipe_or_a_device_is_not_read(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")

    with pytest.raises(FetchError, match="a pipe, socket or device"):
        fetch(str(tmp_path / name))


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        (f"s3://{BUCKET}/no-such-key.jpg", "missing"),
        ("s3://no-such-bucket/a.jpg", r"missing|unreadable"),
        ("/no/such/file.jpg", "missing"),
        ("/", "a folder"),
        ("relative.jpg", "relative path"),
        ("", "no URI"),
        ("nonsense://a/b.jpg", "cannot be used here"),
        ("s3://KEY:hidden1@bucket/a.jpg", "credentials"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_at_once(storage, uri, reason):
    with pytest.raises(FetchError, match=reason) as error:
        fetch(uri)
    assert "hidden1" not in str(error.value)
