"""Which images a job has, and its parts."""

import os
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster.conftest import BUCKET, write_images
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.manifest import (
    MAX_PART_ROWS,
    find_images,
    id_of,
    part_rows_for,
    read_part,
    write_manifest,
)
from workflow_blocks.cluster.store import Store


def manifest_of(source, store, n_workers=1, batch_size=4):
    manifest = write_manifest(store, find_images(str(source)), n_workers, batch_size)
    parts = [read_part(store, part).to_pylist() for part in range(manifest.n_parts)]
    assert [len(part) for part in parts] == [manifest.rows_of(part) for part in range(manifest.n_parts)]
    return manifest, [row for part in parts for row in part]


def table_file(path, uris, column="uri"):
    pq.write_table(pa.table({column: uris}), path)
    return path


def test_a_folder_and_its_folders(tmp_path):
    write_images(tmp_path / "in" / "b", 3)
    write_images(tmp_path / "in" / "a", 2)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "film.mp4").write_text("no image")

    manifest, rows = manifest_of(tmp_path / "in", Store(str(tmp_path / "out")))

    assert (manifest.n_images, manifest.n_skipped, manifest.n_equal) == (5, 2, 0)
    assert [row["uri"].split("/")[-2:] for row in rows] == [
        [folder, f"{number:04}.jpg"] for folder, n in (("a", 2), ("b", 3)) for number in range(n)
    ]
    assert all(row["id"] == id_of(row["uri"]) for row in rows)


def test_a_prefix_on_object_storage(storage, tmp_path):
    for key in ("some/x/1.jpg", "some/2 %.png", "some/notes.txt", "others/3.jpg"):
        storage.client.put_object(Bucket=BUCKET, Key=f"listing/{key}", Body=b"-")

    manifest, rows = manifest_of(f"s3://{BUCKET}/listing/some", Store(f"s3://{BUCKET}/listing-out"))

    assert [row["uri"] for row in rows] == [
        f"s3://{BUCKET}/listing/some/2 %.png",
        f"s3://{BUCKET}/listing/some/x/1.jpg",
    ]
    assert manifest.n_skipped == 1


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("n_images", [1, 7, 500, 20_000])
def test_each_address_of_a_table_is_there_once(tmp_path, n_images, n_workers):
    uris = [f"s3://bucket/{number}.jpg" for number in range(n_images)]
    table = table_file(tmp_path / "images.parquet", [*uris, *uris[::3], uris[0]])

    manifest, rows = manifest_of(table, Store(str(tmp_path / "out")), n_workers)

    assert [row["uri"] for row in rows] == uris
    assert manifest.n_equal == len(uris[::3]) + 1
    assert len({row["id"] for row in rows}) == n_images


def test_credentials_of_a_table_are_not_written(tmp_path):
    uris = ["s3://KEY:hidden1@bucket/1.jpg", "https://host/2.jpg?sig=hidden1", "s3://bucket/3.jpg", None]
    table = table_file(tmp_path / "images.parquet", uris)

    _, rows = manifest_of(table, Store(str(tmp_path / "out")))

    assert [row["uri"] for row in rows] == [
        "s3://bucket/1.jpg",
        "https://host/2.jpg",
        "s3://bucket/3.jpg",
        "",
    ]
    assert [row["error"] is None for row in rows] == [False, False, True, True]
    assert "hidden1" not in str(rows)


@pytest.mark.parametrize("n_images", [1, 31, 33, 1000, 10**6, 10**8])
@pytest.mark.parametrize("n_workers", [1, 2, 100])
@pytest.mark.parametrize("batch_size", [1, 32, 5000])
def test_parts_are_whole_batches(n_images, n_workers, batch_size):
    rows = part_rows_for(n_images, n_workers, batch_size)

    assert rows % batch_size == 0
    assert batch_size <= rows <= max(MAX_PART_ROWS, batch_size)
    n_parts = -(-n_images // rows)
    assert n_parts >= min(n_workers, -(-n_images // batch_size))


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_text_of_any_kind_in_a_table(tmp_path, kind):
    uris = ["s3://bucket/1.jpg", "s3://bucket/2.jpg"]
    table = table_file(tmp_path / "images.parquet", pa.array(uris).cast(kind))

    _, rows = manifest_of(table, Store(str(tmp_path / "out")))

    assert [row["uri"] for row in rows] == uris


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_folder_of_tables(storage, tmp_path, where):
    (tmp_path / "in" / "a").mkdir(parents=True)
    files = {"a/2.parquet": ["s3://b/2.jpg", "s3://b/1.jpg"], "1.parquet": ["s3://b/1.jpg"]}
    for name, uris in files.items():
        table_file(tmp_path / "in" / name, uris)
        key = f"tables/{name}"
        storage.client.put_object(Bucket=BUCKET, Key=key, Body=(tmp_path / "in" / name).read_bytes())
    (tmp_path / "in" / "_SUCCESS").write_text("")
    source = tmp_path / "in" if where == "local" else f"s3://{BUCKET}/tables"

    manifest, rows = manifest_of(source, Store(str(tmp_path / "out")))

    assert [row["uri"] for row in rows] == ["s3://b/1.jpg", "s3://b/2.jpg"]
    assert manifest.n_equal == 1


def test_only_regular_files_are_images(tmp_path):
    write_images(tmp_path / "in", 1)
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    (tmp_path / "in" / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "in" / "link.jpg").symlink_to("0000.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "in" / "socket.jpg"))

        manifest, rows = manifest_of(tmp_path / "in", Store(str(tmp_path / "out")))

    assert [row["uri"].rpartition("/")[2] for row in rows] == ["0000.jpg", "gone.jpg", "link.jpg"]
    assert manifest.n_skipped == 3


@pytest.mark.parametrize("source", ["s3://", "s3:///a", "hdfs://h/x", "nonsense://a"])
def test_addresses_that_cannot_be_used_are_refused(source):
    with pytest.raises(ClusterError, match=r"names no bucket|cannot be used here"):
        find_images(source)
    with pytest.raises(ClusterError, match=r"names no bucket|cannot be used here"):
        Store(source).check_writable()


BAD_INPUTS = {
    "empty folder": (lambda folder: folder.mkdir(), "no image"),
    "not there": (lambda folder: None, "does not exist"),
    "empty table": (lambda file: table_file(file, pa.array([], pa.string())), "is empty"),
    "no column": (lambda file: table_file(file, ["a"], "url"), "no column `uri`; it has url"),
    "numbers": (lambda file: table_file(file, [1]), "is int64; give text"),
    "no table": (lambda file: file.write_bytes(b"none"), "cannot be read"),
    "film.mp4": (lambda file: file.write_bytes(b"-"), "is a video"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs_are_refused(tmp_path, name):
    make, message = BAD_INPUTS[name]
    is_file = "table" in name or name in ("no column", "numbers")
    source = tmp_path / (f"{name}.parquet" if is_file else name)
    make(source)

    with pytest.raises(ClusterError, match=message):
        find_images(str(source))


@pytest.mark.parametrize("source", [f"s3://{BUCKET}/no-such-prefix", "s3://no-such-bucket/a"])
def test_a_prefix_that_is_not_there_is_refused(storage, source):
    with pytest.raises(ClusterError, match=r"does not exist|cannot be read"):
        find_images(source)


def test_an_address_with_credentials_is_refused_as_input():
    with pytest.raises(ClusterError, match="has credentials in it") as error:
        find_images("s3://KEY:hidden1@bucket/prefix")
    assert "hidden1" not in str(error.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path):
    tmp_path.joinpath("closed").mkdir(mode=0)
    with pytest.raises(ClusterError, match="Permission denied"):
        find_images(str(tmp_path / "closed"))
