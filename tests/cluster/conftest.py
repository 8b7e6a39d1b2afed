"""A Ray cluster of two nodes on this machine, object storage on loopback, and images."""

import shutil
import tempfile
from types import SimpleNamespace

import boto3
import cv2
import pyarrow.dataset
import pytest
from botocore.config import Config

from tests.scenes import image_bgr
from workflow_blocks.running.definitions import read_definition

# Chosen so that a search in what is written cannot find them by chance.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIATESTKEYOFNOBODY0",
    "AWS_SECRET_ACCESS_KEY": "s3cr3tOfNobody+/0123456789",
}
BUCKET = "images"


def encoded_image(number, suffix=".jpg"):
    return cv2.imencode(suffix, cv2.resize(image_bgr(number % 10), (320, 240)))[1].tobytes()


def write_images(folder, n_images):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n_images):
        (folder / f"{number:04}.jpg").write_bytes(encoded_image(number))
    return folder


def rows_of(output):
    """The rows of a local output folder by the last part of their addresses, each of which is there once."""
    rows = pyarrow.dataset.dataset(output / "rows", format="parquet").to_table().to_pylist()
    by_name = {row["uri"].rpartition("/")[2]: row for row in rows}
    assert len(by_name) == len(rows)
    return by_name


@pytest.fixture(scope="session")
def definition():
    return read_definition("detect_objects")


@pytest.fixture(scope="session")
def storage():
    """S3 in this process, by moto. `stop` takes it away, and `start` brings it back with its objects."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=address, config=Config(proxies={}))
        client.create_bucket(Bucket=BUCKET)
        storage = SimpleNamespace(client=client, server=server)

        def stop():
            storage.server.stop()

        def start():
            storage.server = ThreadedMotoServer(host, port, verbose=False)
            storage.server.start()

        storage.stop, storage.start = stop, start
        yield storage
        stop()


@pytest.fixture(scope="module")
def cluster(storage):
    """Two nodes with one CPU each, to which this process is connected; workers know `storage`."""
    from workflow_blocks.cluster.session import import_ray

    ray = import_ray()
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="wb-ray-", dir="/tmp")  # paths of sockets must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        nodes = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**nodes, "include_dashboard": False})
        try:
            # This process belongs to the node that is there now, and would end with it.
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            cluster.second_node = cluster.add_node(**nodes)
            cluster.folder = folder
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def contents_of(folder):
    """All files in a folder and its folders, with what is in them."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
