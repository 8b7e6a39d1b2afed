"""The workflow over batches of images inside a worker, without Ray."""

import json
import math
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from ray.data._internal.tensor_extensions.arrow import ArrowTensorArray, ArrowVariableShapedTensorArray

from tests.cluster.conftest import encoded_image
from tests.scenes import recall, true_boxes
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.fetch import FetchError
from workflow_blocks.cluster.ledger import MAX_DEATHS, Ledger
from workflow_blocks.cluster.processor import BatchWorker
from workflow_blocks.cluster.rows import SCHEMA, split_outputs, table_of
from workflow_blocks.cluster.worker import Image, WorkflowRunner
from workflow_blocks.image_files import decode_image


def detections_of(fields):
    return {"image": {}, "predictions": [{"x": 1, "y": 1, "width": 2, "height": 2, "class": "a", **fields}]}


SHAPE = {"prompts": ["shape"]}


def missing():
    raise FetchError("missing: there is no such file")


def image(name, content):
    return Image(name, f"s3://bucket/{name}", content if callable(content) else lambda: content, decode_image)


@pytest.fixture(scope="module")
def runner(definition):
    return WorkflowRunner(ClusterConfig(definition, SHAPE, batch_size=4))


def results_of(runner, images, *ledger):
    results = {result.id: result for result in runner.results(images, *ledger)}
    assert results.keys() == {image.id for image in images}
    return results


def png_header_of(width, height):
    """The start of a PNG file of that size."""
    import struct
    import zlib

    def chunk(content):
        return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))

    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT" + zlib.compress(b"0" * 99))


def test_a_bad_image_costs_only_itself(runner):
    good = [image(f"{number}.jpg", encoded_image(number)) for number in range(10)]
    bad = {
        "text.jpg": (b"no image", "not an image"),
        "empty.jpg": (b"", "not an image"),
        "cut.jpg": (encoded_image(0)[:2000], "damaged or incomplete"),
        "huge.png": (png_header_of(20_000, 20_000), "too large"),
        "gone.jpg": (missing, "missing"),
    }

    results = results_of(runner, [*good, *(image(name, content) for name, (content, _) in bad.items())])

    for name, (_, reason) in bad.items():
        assert reason in results[name].error
    found = true = 0
    for number in range(10):
        result = results[f"{number}.jpg"]
        assert (result.error, result.width, result.height) == (None, 320, 240)
        assert result.outputs["counts"]["shape"] == len(result.detections)
        boxes = np.array(
            [[box[c] for c in ("x_min", "y_min", "x_max", "y_max")] for box in result.detections]
        )
        hits, n = recall(boxes, true_boxes(number) * scale_of(number))
        found, true = found + hits, true + n
    assert found / true > 0.6


def scale_of(number):
    from tests.scenes import image_bgr

    height, width = image_bgr(number).shape[:2]
    return np.array([320 / width, 240 / height] * 2)


def test_rows_have_the_columns_of_every_job(runner):
    results = results_of(runner, [image("1.jpg", encoded_image(1)), image("bad.jpg", b"-")])

    table = table_of(list(results.values()))

    assert table.schema == SCHEMA
    rows = {row["id"]: row for row in table.to_pylist()}
    assert rows["bad.jpg"]["detections"] is None
    box = rows["1.jpg"]["detections"][0]
    assert box["class"] == "shape"
    assert box["class_id"] == 0
    assert 0 < box["confidence"] <= 1
    assert 0 <= box["x_min"] < box["x_max"] <= 320
    assert box["output"] == "predictions"
    assert "detection_id" in box["data"]


class Notes(Ledger):
    def __init__(self, deaths):
        self.known, self.begun, self.finished = deaths, [], []

    def deaths(self, ids):
        return {name: n for name, n in self.known.items() if name in ids}

    def begin(self, ids):
        self.begun.append(list(ids))

    def finish(self, ids, n_failed, refusals=()):
        self.finished += ids


def test_suspects_are_run_alone_and_given_up_in_the_end(runner):
    images = [image(f"{number}.jpg", encoded_image(number)) for number in range(6)]
    notes = Notes({"1.jpg": 1, "4.jpg": MAX_DEATHS})

    results = results_of(runner, images, notes)

    assert "3 workers died while they processed it" in results["4.jpg"].error
    assert ["1.jpg"] in notes.begun
    assert not any("4.jpg" in ids for ids in notes.begun)
    assert ["0.jpg", "2.jpg", "3.jpg", "5.jpg"] in notes.begun
    assert sorted(notes.finished) == [f"{number}.jpg" for number in range(6)]


def test_a_batch_that_fails_is_run_image_by_image(definition, monkeypatch):
    runner = WorkflowRunner(ClusterConfig(definition, SHAPE, batch_size=4))
    run = runner._engine.run

    def fails_for_wide(runtime_parameters, **others):
        if any(pixels.shape[1] > 320 for pixels in runtime_parameters["image"]):
            raise RuntimeError("too wide for this test")
        return run(runtime_parameters=runtime_parameters, **others)

    monkeypatch.setattr(runner._engine, "run", fails_for_wide)
    wide = np.zeros((10, 400, 3), np.uint8)
    images = [image(f"{number}.jpg", encoded_image(number)) for number in range(3)]

    results = results_of(runner, [*images, Image("wide", "wide", lambda: wide, lambda pixels: pixels)])

    assert results["wide"].error == "too wide for this test"
    assert [results[f"{number}.jpg"].error for number in range(3)] == [None] * 3


ODD_OUTPUTS = {
    "text as class id": ({"boxes": detections_of({"class_id": "one"})}, "outputs cannot be written"),
    "text as a size": ({"boxes": detections_of({"width": "wide"})}, "outputs cannot be written"),
    "a list as confidence": ({"boxes": detections_of({"confidence": [1]})}, "outputs cannot be written"),
    "a tuple as key": ({"pairs": {(1, 2): 3, 4: 5}}, {"pairs": {"(1, 2)": 3, "4": 5}}),
    "not finite": ({"values": [math.nan, -math.inf, (1.5, math.inf)]}, {"values": [None, None, [1.5, None]]}),
    "an object": ({"value": pathlib.PurePosixPath("a")}, {"value": "a"}),
}


@pytest.mark.parametrize("name", ODD_OUTPUTS)
def test_odd_outputs_cost_only_their_image(definition, monkeypatch, name):
    odd, expected = ODD_OUTPUTS[name]
    runner = WorkflowRunner(ClusterConfig(definition, SHAPE, batch_size=4))
    monkeypatch.setattr(runner._engine, "run", lambda **_: [odd, {"value": 1}])

    results = results_of(runner, [image(f"{number}.jpg", encoded_image(number)) for number in range(2)])

    table = table_of([results["0.jpg"], results["1.jpg"]]).to_pylist()
    assert table[1]["outputs"] == '{"value": 1}'
    if isinstance(expected, str):
        assert expected in table[0]["error"]
    else:
        assert json.loads(table[0]["outputs"], parse_constant=pytest.fail) == expected


def test_an_error_ends_the_run_where_it_is_wanted(definition):
    runner = WorkflowRunner(ClusterConfig(definition, SHAPE, should_continue_on_error=False))

    with pytest.raises(ClusterError, match="not an image"):
        results_of(runner, [image("bad.jpg", b"-")])
    with_credentials = Image("1", "https://h/a.jpg?sig=hidden1", missing, decode_image)
    with pytest.raises(ClusterError, match=r"https://h/a\.jpg: missing") as error:
        results_of(runner, [with_credentials])
    assert "hidden1" not in str(error.value)


def test_large_images_are_run_in_smaller_batches(definition, monkeypatch):
    monkeypatch.setattr("workflow_blocks.cluster.worker.MAX_PIXELS_AT_ONCE", 2 * 320 * 240)
    runner = WorkflowRunner(ClusterConfig(definition, SHAPE, batch_size=8))
    sizes = []
    run = runner._engine.run
    monkeypatch.setattr(
        runner._engine,
        "run",
        lambda runtime_parameters, **others: (
            sizes.append(len(runtime_parameters["image"])) or run(runtime_parameters, **others)
        ),
    )

    results_of(runner, [image(f"{number}.jpg", encoded_image(number)) for number in range(5)])

    assert sizes == [2, 2, 1]


def test_values_for_each_image_and_names(definition):
    batch = definition | {
        "inputs": [
            {"type": "InferenceImage", "name": "image"},
            {"type": "WorkflowBatchInput", "name": "prompts", "kind": ["list_of_values"]},
            {"type": "WorkflowParameter", "name": "model", "default_value": "moondream2-demo"},
        ]
    }
    prompts = {"0.jpg": ["circle"], "1.jpg": ["star", "square"]}
    runner = WorkflowRunner(ClusterConfig(batch, {"prompts": prompts}, batch_size=2))

    results = results_of(runner, [image(f"{number}.jpg", encoded_image(number)) for number in range(3)])

    assert list(results["0.jpg"].outputs["counts"]) == ["circle"]
    assert list(results["1.jpg"].outputs["counts"]) == ["star", "square"]
    assert "no value for 2.jpg" in results["2.jpg"].error


def detections(*boxes):
    return {"image": {"width": 9, "height": 9}, "predictions": list(boxes)}


BOX = {
    "x": 4.0,
    "y": 5.0,
    "width": 2.0,
    "height": 4.0,
    "class": "a",
    "class_id": 1,
    "confidence": 0.5,
    "extra": 7,
}


@pytest.mark.parametrize(
    ("value", "n_boxes"),
    [
        (detections(BOX), 1),
        (detections(), 0),
        ([detections(BOX), detections(BOX, BOX)], 3),
        ([detections(BOX), None], 1),
        ([[detections(BOX)], [detections(BOX)]], 2),
    ],
)
def test_detections_are_found_among_outputs(value, n_boxes):
    found, others = split_outputs({"boxes": value, "counts": {"a": 1}, "list": [1, 2]})

    assert others == {"counts": {"a": 1}, "list": [1, 2]}
    assert len(found) == n_boxes
    for box in found:
        assert (box["x_min"], box["y_min"], box["x_max"], box["y_max"]) == (3.0, 3.0, 5.0, 7.0)
        assert box["data"] == '{"extra": 7}'


@pytest.mark.parametrize(
    "value", [[], {}, None, {"predictions": [1]}, [detections(), 1], {"predictions": []}]
)
def test_other_outputs_stay_outputs(value):
    assert split_outputs({"value": value}) == ([], {"value": value})


def test_batches_of_a_pipeline_of_ones_own(definition, tmp_path):
    file = tmp_path / "a b.jpg"
    file.write_bytes(encoded_image(1))
    uris = [file.as_uri(), file.as_uri(), None, "/no/such.jpg"]
    batch = pa.table({"uri": uris, "error": ["theirs"] * 4, "mine": [1, 2, 3, 4]})

    found = BatchWorker(ClusterConfig(definition, SHAPE))(batch)

    assert found["uri"].to_pylist() == uris
    assert found["mine"].to_pylist() == [1, 2, 3, 4]
    assert found["error"].to_pylist() == [None, None, "no URI", "missing: there is no such file"]
    first, second, *_ = found["detections"].to_pylist()
    assert [box["x_min"] for box in first] == [box["x_min"] for box in second]
    assert first


def images_as(form):
    encoded = [encoded_image(number, ".png") for number in range(2)]
    rgb = [decode_image(content)[..., ::-1] for content in encoded]
    if form == "bytes":
        return pa.array(encoded)
    if form == "of datasets":
        return pa.array([{"bytes": content, "path": "x.png"} for content in encoded])
    if form == "arrays of one shape":
        return ArrowTensorArray.from_numpy(np.stack(rgb))
    return ArrowVariableShapedTensorArray.from_numpy(np.array([rgb[0], rgb[1][:100], None], object)[:2])


@pytest.mark.parametrize("form", ["bytes", "of datasets", "arrays of one shape", "arrays of several shapes"])
def test_images_as_a_column(definition, form):
    config = ClusterConfig(definition, SHAPE, image_column="image")

    found = BatchWorker(config)(pa.table({"image": images_as(form)})).to_pydict()

    assert found["error"] == [None, None]
    assert found["width"] == [320, 320]
    assert found["height"] == ([240, 100] if form == "arrays of several shapes" else [240, 240])
    expected = results_of(WorkflowRunner(config), [image("0.png", encoded_image(0, ".png"))])["0.png"]
    boxes = [[box[name] for name in ("class", "x_min", "y_max")] for box in found["detections"][0]]
    assert boxes == [[box[name] for name in ("class", "x_min", "y_max")] for box in expected.detections]


@pytest.mark.parametrize("value", [None, b"-", b""])
def test_images_that_are_none_are_errors(definition, value):
    batch = pa.table({"image": pa.array([value], pa.binary())})

    found = BatchWorker(ClusterConfig(definition, SHAPE, image_column="image"))(batch)

    assert found["error"].null_count == 0


def test_the_message_of_a_sink_has_no_credentials(definition):
    sink = {
        "type": "roboflow_core/webhook_sink@v1",
        "name": "sink",
        "url": "http://me:hidden1@127.0.0.1:9/?token=hidden2",
        "method": "GET",
        "fire_and_forget": False,
        "cooldown_seconds": 0,
    }
    message = {"type": "JsonField", "name": "what", "selector": "$steps.sink.message"}
    changed = {
        **definition,
        "steps": [*definition["steps"], sink],
        "outputs": [*definition["outputs"], message],
    }
    runner = WorkflowRunner(ClusterConfig(changed, SHAPE))

    result = results_of(runner, [image("a", encoded_image(1))])["a"]

    assert "127.0.0.1" in result.outputs["what"]
    assert "hidden" not in json.dumps(result.outputs)
