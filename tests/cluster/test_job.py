"""Jobs on a real Ray cluster of two nodes, with the bundled model and object storage on loopback."""

import contextlib
import gc
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tests.cluster.conftest import BUCKET, CREDENTIALS, contents_of, encoded_image, rows_of, write_images
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.job import Job, run_job
from workflow_blocks.cluster.processor import BatchWorker, build_processor

SHAPE = {"prompts": ["shape"]}


@pytest.fixture
def job(cluster, definition, tmp_path):
    """Makes a job of one worker, which leaves the other node's CPU free."""

    def job(source, output=tmp_path / "out", **settings):
        settings = {"parameters": SHAPE, "workers": (1, 1), "batch_size": 4, **settings}
        return Job(settings.pop("definition", definition), str(source), str(output), **settings)

    return job


def worker_processes():
    return processes_named("PartWorker")


def processes_named(name):
    """The processes of this session's cluster that have a name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            if name in " ".join(process.cmdline()):
                found.append(process)
    return found


def wait_until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return value


def test_a_job_on_object_storage_its_bad_images_its_repeat_and_another_workflow(
    cluster, storage, job, tmp_path
):
    for number in range(10):
        storage.client.put_object(Bucket=BUCKET, Key=f"job/in/{number}.jpg", Body=encoded_image(number))
    for name, content in {"text.jpg": b"no image", "empty.png": b"", "notes.txt": b"-"}.items():
        storage.client.put_object(Bucket=BUCKET, Key=f"job/in/{name}", Body=content)
    shown = io.StringIO()
    this = job(f"s3://{BUCKET}/job/in", f"s3://{BUCKET}/job/out")

    summary = run_job(this, Console(file=shown))

    assert (summary.n_images, summary.n_failed, summary.n_done_before, summary.n_skipped) == (12, 2, 0, 1)
    download(storage, "job/out/", tmp_path / "copy")
    rows = rows_of(tmp_path / "copy")
    assert rows.keys() == {*(f"{number}.jpg" for number in range(10)), "text.jpg", "empty.png"}
    assert all((row["error"] is None) == (row["width"] == 320) for row in rows.values())
    assert sum(len(row["detections"]) for row in rows.values() if row["error"] is None) > 10
    failures = pq.read_table(tmp_path / "copy" / "failures.parquet").to_pylist()
    assert {row["uri"].rpartition("/")[2] for row in failures} == {"text.jpg", "empty.png"}

    written = contents_of(tmp_path / "copy" / "rows")
    again = run_job(this)
    assert (again.n_images, again.n_failed, again.n_done_before) == (12, 2, 12)
    download(storage, "job/out/", tmp_path / "copy")
    assert written.items() <= contents_of(tmp_path / "copy").items()

    for other in ({"parameters": {"prompts": ["circle"]}}, {"source": f"s3://{BUCKET}/job"}):
        settings = {"source": this.source, "output": this.output, **other}
        with pytest.raises(ClusterError, match="holds results of another"):
            run_job(job(**settings))

    everything = contents_of(tmp_path / "copy") | contents_of(Path(cluster.folder))
    for secret in CREDENTIALS.values():
        assert [path for path, content in everything.items() if secret.encode() in content] == []
        assert secret not in shown.getvalue()


def download(storage, prefix, folder):
    for entry in storage.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]:
        if entry["Key"].endswith("/"):
            continue  # what pyarrow leaves for a folder that became empty
        path = folder / entry["Key"].removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read())


def test_too_few_free_cpus_are_told_at_once(job, tmp_path):
    write_images(tmp_path / "in", 1)

    with pytest.raises(ClusterError, match=r"5 workers of 0.9 CPUs each were asked for, and 2 fit"):
        run_job(job(tmp_path / "in", workers=(5, 5)))
    with pytest.raises(ClusterError, match="GPUs each were asked for, and 0 fit"):
        run_job(job(tmp_path / "in", gpus_per_worker=1))


def test_an_output_that_others_made_is_refused(job, tmp_path):
    write_images(tmp_path / "in", 1)
    (tmp_path / "out" / "rows").mkdir(parents=True)
    (tmp_path / "out" / "rows" / "theirs.parquet").write_bytes(b"-")

    with pytest.raises(ClusterError, match="no job of this version made it"):
        run_job(job(tmp_path / "in"))
    with pytest.raises(ClusterError, match="no job of this version made it"):
        run_job(job(tmp_path / "in", again=True))


@pytest.mark.long
def test_a_cluster_of_another_version_is_refused(cluster):
    program = (
        "from workflow_blocks.cluster.session import import_ray, ray_session\n"
        "from workflow_blocks.cluster.errors import ClusterError\n"
        "import_ray().__version__ = '2.0.0'\n"
        "try:\n"
        f"    ray_session({cluster.address!r}).__enter__()\n"
        "except ClusterError as error:\n"
        "    print(error)\n"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "the cluster runs other versions than this program; install the same here" in result.stdout
    assert "2.0.0" in result.stdout


@pytest.mark.long
def test_three_hundred_images_with_two_workers_of_which_one_is_killed(job, tmp_path):
    write_images(tmp_path / "in", 300)
    killed = []

    def kill():
        wait_until(lambda: len(list((tmp_path / "out").glob("rows/*.parquet"))) >= 2)
        killed.append(worker_processes()[0].pid)
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    summary = run_job(job(tmp_path / "in", workers=(2, 2)))
    thread.join()

    assert len(killed) == 1
    assert (summary.n_images, summary.n_failed) == (300, 0)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 300
    # The one that replaces the killed worker may be ready only after all images are done.
    assert len({row["worker"] for row in rows.values()}) in (2, 3)


POISON = {
    "type": "DynamicBlockDefinition",
    "manifest": {
        "type": "ManifestDescription",
        "block_type": "Poison",
        "inputs": {
            "image": {
                "type": "DynamicInputDefinition",
                "selector_types": ["input_image"],
            }
        },
        "outputs": {"width": {"type": "DynamicOutputDefinition", "kind": ["integer"]}},
    },
    "code": {
        "type": "PythonCode",
        "run_function_code": (
            "def run(self, image):\n"
            "    import os, signal\n"
            "    if image.numpy_image.shape[1] == 77:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return {'width': image.numpy_image.shape[1]}\n"
        ),
    },
}


@pytest.mark.long
def test_an_image_that_kills_workers_becomes_an_error_row(job, tmp_path):
    import cv2
    import numpy as np

    write_images(tmp_path / "in", 11)
    cv2.imwrite(str(tmp_path / "in" / "0005b.jpg"), np.zeros((50, 77, 3), np.uint8))
    poison = {
        "version": "1.0",
        "inputs": [{"type": "InferenceImage", "name": "image"}],
        "dynamic_blocks_definitions": [POISON],
        "steps": [{"type": "Poison", "name": "poison", "image": "$inputs.image"}],
        "outputs": [{"type": "JsonField", "name": "width", "selector": "$steps.poison.width"}],
    }

    summary = run_job(job(tmp_path / "in", definition=poison, parameters={}))

    assert (summary.n_images, summary.n_failed) == (12, 1)
    rows = rows_of(tmp_path / "out")
    assert rows["0005b.jpg"]["error"] == "3 workers died while they processed it"
    assert {json.loads(row["outputs"])["width"] for row in rows.values() if row["error"] is None} == {320}


@pytest.mark.long
def test_a_driver_that_is_killed_is_continued_and_its_results_become_a_dataset(cluster, tmp_path):
    write_images(tmp_path / "in", 60)
    program = [sys.executable, "-m", "workflow_blocks"]
    command = [*program, "run-cluster", "detect_objects", "--prompts", "shape"]
    command += ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    command += ["--workers", "1,2", "--batch-size", "4", "--address", cluster.address]
    driver = subprocess.Popen(command)
    wait_until(lambda: any((tmp_path / "out").glob("rows/*.parquet")))
    driver.kill()
    driver.wait()
    wait_until(lambda: not worker_processes())
    n_before = len(list((tmp_path / "out").glob("rows/*.parquet")))

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    assert f"60 rows, {4 * n_before} of them before, 0 of them failed" in result.stdout
    assert 0 < n_before < 15
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 60

    export = [*program, "export-dataset", str(tmp_path / "out"), "-o", str(tmp_path / "dataset")]
    result = subprocess.run(
        [*export, "--valid", "0.3", "--test", "0", "--address", cluster.address],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "60 images (train " in result.stdout
    files = (tmp_path / "dataset").glob("*/_annotations.coco.json")
    splits = {file.parent.name: json.loads(file.read_text()) for file in files}
    assert splits.keys() == {"train", "valid"}
    assert sum(len(split["images"]) for split in splits.values()) == 60
    n_boxes = sum(len(row["detections"]) for row in rows.values())
    assert sum(len(split["annotations"]) for split in splits.values()) == n_boxes > 60


@pytest.mark.long
def test_a_workflow_as_a_step_of_a_pipeline(cluster, definition, tmp_path):
    import ray.data

    write_images(tmp_path / "in", 12)
    config = ClusterConfig(definition, SHAPE, batch_size=5, concurrency=1, image_column="image")
    images = ray.data.read_images(str(tmp_path / "in"), include_paths=True, override_num_blocks=3)

    build_processor(config)(images).drop_columns(["image"]).write_parquet(str(tmp_path / "out"))

    found = pq.read_table(tmp_path / "out").to_pylist()
    assert sorted(Path(row["path"]).name for row in found) == [f"{number:04}.jpg" for number in range(12)]
    assert {(row["width"], row["height"], row["error"]) for row in found} == {(320, 240, None)}
    assert len({row["worker"] for row in found}) == 1
    expected = BatchWorker(config)(pa.table({"image": [encoded_image(number) for number in range(12)]}))
    boxes = {row["path"][-8:-4]: len(row["detections"]) for row in found}
    assert [boxes[f"{number:04}"] for number in range(12)] == [
        len(detections) for detections in expected["detections"].to_pylist()
    ]


@pytest.mark.long
def test_a_node_that_is_removed(cluster, job, tmp_path):
    write_images(tmp_path / "in", 80)

    def remove():
        wait_until(lambda: len(list((tmp_path / "out").glob("rows/*.parquet"))) >= 3)
        cluster.remove_node(cluster.second_node, allow_graceful=False)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        summary = run_job(job(tmp_path / "in", workers=(2, 2)))
    finally:
        thread.join()
        cluster.second_node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)

    assert (summary.n_images, summary.n_failed) == (80, 0)
    assert len(rows_of(tmp_path / "out")) == 80


@pytest.fixture
def no_garbage_collection():
    """A program that keeps its garbage for long, as one may that makes little."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.long
def test_a_job_whose_workflow_always_fails_is_stopped_and_replaced(job, tmp_path, no_garbage_collection):
    write_images(tmp_path / "in", 200)
    wrong = SHAPE | {"model": str(tmp_path / "no_package")}

    with pytest.raises(
        ClusterError, match=r"^the workflow failed for the first \d+ images: .*--again$"
    ) as failed:
        run_job(job(tmp_path / "in", parameters=wrong, workers=(2, 2)))
    assert len(list((tmp_path / "out").glob("rows/*.parquet"))) < 50

    # Needs the CPUs of the workers that failed, to whose error this program still refers.
    summary = run_job(job(tmp_path / "in", again=True, workers=(2, 2)))
    assert failed.value.__cause__ is not None

    assert (summary.n_images, summary.n_failed, summary.n_done_before) == (200, 0, 0)
    repeated = run_job(job(f"{tmp_path}/in/"))
    assert repeated.n_done_before == 200
    assert repeated.images_per_second == summary.images_per_second > 0


@pytest.mark.long
def test_a_job_that_the_cluster_ends_is_an_error_and_is_continued(job, tmp_path):
    write_images(tmp_path / "in", 200)

    def kill():
        wait_until(lambda: any((tmp_path / "out").glob("rows/*.parquet")))
        for keeper in processes_named("ray::LedgerKeeper"):  # that of an earlier job may be ending
            keeper.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(ClusterError, match="the same command continues"):
        run_job(job(tmp_path / "in"))
    thread.join()
    assert len(list((tmp_path / "out").glob("rows/*.parquet"))) < 50

    summary = run_job(job(tmp_path / "in"))

    assert summary.n_images == len(rows_of(tmp_path / "out")) == 200
    assert summary.n_done_before > 0


@pytest.mark.long
def test_an_outage_of_the_object_storage(storage, job, tmp_path):
    for number in range(40):
        storage.client.put_object(Bucket=BUCKET, Key=f"away/in/{number}.jpg", Body=encoded_image(number))
    this = job(f"s3://{BUCKET}/away/in", f"s3://{BUCKET}/away/out")

    def n_written():
        found = storage.client.list_objects_v2(Bucket=BUCKET, Prefix="away/out/rows/")
        return found["KeyCount"]

    def outage():
        wait_until(lambda: n_written() >= 2)
        storage.stop()
        time.sleep(8)
        storage.start()

    thread = threading.Thread(target=outage)
    thread.start()
    summary = run_job(this)
    thread.join()

    assert (summary.n_images, summary.n_failed) == (40, 0)
    download(storage, "away/out/", tmp_path / "copy")
    assert len(rows_of(tmp_path / "copy")) == 40
