"""Datasets of a job's rows, read by pycocotools, supervision and pandas.

The short tests call in this process what Ray would call in its tasks; a long one is on a real cluster.
"""

import json
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import supervision as sv
from pycocotools.coco import COCO

from tests.cluster.conftest import encoded_image, rows_of, write_images
from workflow_blocks.cluster import dataset_export
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.dataset_export import EXPORT_FORMATS, Export, export_dataset
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.fetch import fetch
from workflow_blocks.cluster.job_folder import JobFolder
from workflow_blocks.cluster.manifest import find_images, read_part
from workflow_blocks.cluster.parts import rows_file
from workflow_blocks.cluster.rows import table_of
from workflow_blocks.cluster.store import Store
from workflow_blocks.cluster.worker import Image, WorkflowRunner
from workflow_blocks.image_files import decode_image

SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}
PROMPTS = {"prompts": ["square", "circle", "star"]}


@pytest.fixture(scope="module")
def results(definition, tmp_path_factory):
    """The folder of a finished job, whose rows this process made: 20 images, of which one is bad."""
    folder = tmp_path_factory.mktemp("export")
    images = write_images(folder / "in", 19)
    (images / "größe 100%.png").write_bytes(encoded_image(9, ".png"))
    (images / "bad.jpg").write_bytes(b"-")
    store = Store(str(folder / "out"))
    manifest = JobFolder(store).start(definition, PROMPTS, str(images), find_images(str(images)), 1, 4)
    runner = WorkflowRunner(ClusterConfig(definition, PROMPTS))
    for part in range(manifest.n_parts):
        rows = read_part(store, part).to_pylist()
        chosen = [
            Image(row["id"], row["uri"], lambda uri=row["uri"]: fetch(uri), decode_image) for row in rows
        ]
        found = {result.id: result for result in runner.results(chosen)}
        store.write_table(rows_file(part), table_of([found[row["id"]] for row in rows]))
    return folder / "out"


@pytest.fixture
def export(results, tmp_path, monkeypatch):
    def in_this_process(function, parts):
        return [json.loads(json.dumps(function(part))) for part in parts]

    monkeypatch.setattr(dataset_export, "_on_ray", in_this_process)

    def export(format, **settings):
        output = settings.pop("output", tmp_path / "dataset")
        chosen = Export(Store(str(results)), Store(str(output)), format, SHARES, **settings)
        return export_dataset(chosen), output

    return export


def boxes_of(results):
    """The boxes of each image by its name, as the rows have them."""
    return {
        unquote(name): sorted(box["class"] for box in row["detections"])
        for name, row in rows_of(results).items()
        if row["error"] is None
    }


def test_coco(export, results):
    summary, output = export("coco")

    assert summary.class_names == ("square", "circle", "star")
    assert list(summary.failures.values()) == ["not an image that OpenCV can read, or its start is damaged"]
    expected, found, ids = boxes_of(results), {}, []
    for split in summary.images:
        coco = COCO(str(output / split / "_annotations.coco.json"))
        ids += [*coco.imgs, *coco.anns]
        names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
        for image in coco.dataset["images"]:
            assert (output / split / image["file_name"]).is_file()
            annotations = coco.imgToAnns[image["id"]]
            found[image["extra"]["name"]] = sorted(names[entry["category_id"]] for entry in annotations)
    assert found == expected
    assert len(set(ids)) == len(ids)
    assert summary.n_boxes == sum(map(len, expected.values()))
    assert not (output / "shards").exists()


@pytest.mark.long
def test_an_export_on_ray_is_the_same(cluster, export, monkeypatch, tmp_path):
    contents = []
    for name in ("in this process", "on Ray"):
        summary, output = export("coco", output=tmp_path / name)
        monkeypatch.undo()
        contents.append(
            [json.loads((output / s / "_annotations.coco.json").read_text()) for s in summary.images]
        )

    assert contents[0] == contents[1]


def test_yolo(export, results):
    summary, output = export("yolo")

    found = {}
    for split in summary.images:
        dataset = sv.DetectionDataset.from_yolo(
            str(output / split / "images"), str(output / split / "labels"), str(output / "data.yaml")
        )
        assert dataset.classes == ["square", "circle", "star"]
        for path, _, detections in dataset:
            found[path.rpartition("/")[2]] = sorted(dataset.classes[i] for i in detections.class_id)
    assert sorted(found.values()) == sorted(boxes_of(results).values())


def test_pascal_voc(export, results):
    summary, output = export("pascal_voc")

    n_boxes = 0
    for split in summary.images:
        dataset = sv.DetectionDataset.from_pascal_voc(str(output / split), str(output / split))
        n_boxes += sum(len(detections) for _, _, detections in dataset)
    assert n_boxes == summary.n_boxes > 0


def test_parquet(export, results):
    summary, output = export("parquet")

    table = pd.read_parquet(output / "data")
    assert len(table) == 20
    assert table["image_id"].is_unique
    assert sum(len(objects["category"]) for objects in table["objects"]) == summary.n_boxes
    first = table.iloc[0]
    assert decode_image(first["image"]["bytes"]).shape == (first["height"], first["width"], 3)
    assert np.stack([box for objects in table["objects"] for box in objects["bbox"]]).min() >= 0


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_what_is_not_possible_is_refused(export, results, tmp_path, format):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "theirs").write_text("-")
    with pytest.raises(ClusterError, match="is not empty"):
        export(format)
    with pytest.raises(ClusterError, match="has no results of"):
        export_dataset(Export(Store(str(tmp_path)), Store(str(tmp_path / "new")), format, SHARES))


def test_classes_that_are_given_are_the_classes(export, tmp_path):
    summary, _ = export("yolo", class_names=("star", "circle", "square", "other"), output=tmp_path / "own")
    assert summary.class_names == ("star", "circle", "square", "other")

    with pytest.raises(ClusterError, match="classes that are not given: square, star"):
        export("yolo", class_names=("circle",), output=tmp_path / "few")
    with pytest.raises(ClusterError, match=r"no output `other` has detections; these have: predictions"):
        export("yolo", detections="other", output=tmp_path / "none")


def test_a_folder_of_others_is_kept(export, tmp_path):
    (tmp_path / "dataset" / "shards").mkdir(parents=True)
    (tmp_path / "dataset" / "shards" / "mine.tar").write_text("mine")

    with pytest.raises(ClusterError, match="is not empty"):
        export("coco")

    assert (tmp_path / "dataset" / "shards" / "mine.tar").exists()


def test_an_image_that_has_another_size_than_in_the_job_is_a_failure(results, export, monkeypatch):
    def larger(content):
        image = decode_image(content)
        return np.vstack([image, image]) if image.mean() > 0 else image

    monkeypatch.setattr(dataset_export, "decode_image", larger)

    summary, _ = export("coco", output=results.parent / "changed")

    assert sum("it has changed since the job" in reason for reason in summary.failures.values()) == 20
    assert summary.images == {}


def test_an_output_that_cannot_be_written_is_named(export, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)

    with pytest.raises(ClusterError, match="No space left on device"):
        export("coco", output=tmp_path / "full")
