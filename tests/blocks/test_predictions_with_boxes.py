"""Every kind of predictions with boxes, as the engine gives it to the blocks that write boxes."""

import csv
import io
import json

import numpy as np
import pytest

from tests.scenes import image_bgr
from tests.workflows.definitions import workflow
from workflow_blocks.blocks.common.kinds import KINDS_WITH_BOXES
from workflow_blocks.inference_host.engine import make_engine
from workflow_blocks.running.definitions import read_definition

BOX = {"x": 40, "y": 30, "width": 20, "height": 10, "class": "part", "class_id": 0, "confidence": 0.5}
# What the kinds hold beside a box.
MORE = {
    "instance_segmentation_prediction": {
        "points": [{"x": x, "y": y} for x, y in ((30, 25), (50, 25), (50, 35))]
    },
    "rle_instance_segmentation_prediction": {"rle_mask": {"size": [480, 640], "counts": "PP\\9"}},
    "semantic_segmentation_prediction": {"rle_mask": {"size": [480, 640], "counts": "PP\\9"}},
    "keypoint_detection_prediction": {
        "keypoints": [{"x": 35, "y": 30, "class_id": 0, "class": "tip", "confidence": 0.9}]
    },
    "qr_code_detection": {"data": "text"},
    "bar_code_detection": {"data": "text"},
}
TABLE = {"type": "workflow_blocks/detections_table@v1", "name": "table"}
EXPORT = {
    "type": "workflow_blocks/detections_dataset_export@v1",
    "name": "export",
    "images": "$inputs.image",
}


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS_WITH_BOXES])
def test_the_boxes_of_every_kind_are_written(run_workflow, tmp_path, kind):
    prediction = BOX | {"detection_id": "one", "parent_id": "image"} | MORE.get(kind, {})
    predictions = {"image": {"width": 640, "height": 480}, "predictions": [prediction]}
    definition = workflow(
        TABLE | {"predictions": "$inputs.predictions"},
        EXPORT | {"predictions": "$inputs.predictions", "target_directory": str(tmp_path)},
        inputs=(),
        outputs={"content": "$steps.table.content", "message": "$steps.export.message"},
    )
    definition["inputs"].append({"type": "WorkflowBatchInput", "name": "predictions", "kind": [kind]})

    (result,) = run_workflow(definition, image=image_bgr(0), predictions=[predictions])

    (row,) = csv.DictReader(io.StringIO(result["content"]))
    assert [float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max")] == [30, 25, 50, 35]
    assert result["message"] == "Image written"
    document = json.loads((tmp_path / "train" / "_annotations.coco.json").read_text())
    (annotation,) = document["annotations"]
    np.testing.assert_allclose(annotation["bbox"], [30, 25, 20, 10])


def test_segments_of_the_bundled_definition_compile_into_an_export(model_manager):
    definition = read_definition("segment_by_prompt")
    definition["steps"].append(
        EXPORT | {"predictions": "$steps.segmentation.predictions", "target_directory": "set"}
    )

    make_engine(definition, model_manager)
