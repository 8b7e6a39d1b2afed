"""What an editor reads in the blocks' manifests: limits, names of values, descriptions and examples."""

import json
import re
from typing import get_args

import pytest
from inference.core.interfaces.http.handlers.workflows import _get_air_gapped_info_for_block
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from workflow_blocks import load_blocks
from workflow_blocks.blocks.common.model_version import MAX_LENGTH
from workflow_blocks.blocks.detections_dataset_export.settings import MAX_CLASS_NAME_LENGTH
from workflow_blocks.blocks.detections_dataset_export.v1 import BlockManifest as ExportManifest
from workflow_blocks.blocks.detections_table.v1 import BlockManifest as TableManifest
from workflow_blocks.blocks.moondream2_prompt_detection import v1 as detection
from workflow_blocks.blocks.moondream2_prompt_detection.prompts import MAX_PROMPT_LENGTH, MAX_PROMPTS

DetectionManifest = detection.BlockManifest
STEPS = {
    DetectionManifest: {
        "type": "workflow_blocks/moondream2_prompt_detection@v1",
        "name": "detection",
        "images": "$inputs.image",
        "prompts": "red car",
    },
    TableManifest: {
        "type": "workflow_blocks/detections_table@v1",
        "name": "table",
        "predictions": "$steps.detection.predictions",
    },
    ExportManifest: {
        "type": "workflow_blocks/detections_dataset_export@v1",
        "name": "export",
        "images": "$inputs.image",
        "predictions": "$steps.detection.predictions",
        "target_directory": "datasets/shapes",
    },
}
MANIFESTS = list(STEPS)
SCHEMAS = {manifest: Draft202012Validator(manifest.model_json_schema()) for manifest in MANIFESTS}
FIELDS = [
    pytest.param(manifest, name, id=f"{step['name']}.{name}")
    for manifest, step in STEPS.items()
    for name in manifest.model_fields
    if name not in ("type", "name")
]
per_manifest = pytest.mark.parametrize("manifest", MANIFESTS, ids=[step["name"] for step in STEPS.values()])
per_field = pytest.mark.parametrize(("manifest", "name"), FIELDS)


def many(count):
    return [str(number) for number in range(count)]


NOT_FROM_0_TO_1 = [-0.1, 1.1, 5, "0.5", "high", True, False, None, [0.5], {}]
NOT_WORDS = ["", " ", "\n\t", 3, True, None, {}]
GOOD = {
    (DetectionManifest, "prompts"): [
        "red car",
        "x" * MAX_PROMPT_LENGTH,
        "собака 🐕",
        ["dog"],
        many(MAX_PROMPTS),
        "$inputs.prompts",
        ["$steps.a.text", "dog"],
    ],
    (DetectionManifest, "model_version"): ["some/model", "/a/package", "x" * MAX_LENGTH, "$inputs.model"],
    (DetectionManifest, "confidence"): [0, 0.0, 0.5, 1, 1.0, "$inputs.confidence"],
    (DetectionManifest, "iou_threshold"): [0, 0.0, 0.5, 1, 1.0, "$steps.a.iou"],
    (DetectionManifest, "max_detections"): [1, 50, "$inputs.most"],
    (DetectionManifest, "class_agnostic_nms"): [True, False, "$inputs.agnostic"],
    (TableManifest, "format"): ["csv", "jsonl", "$inputs.format"],
    (TableManifest, "image_name"): ["photo.jpg", "", None, "$inputs.name"],
    (ExportManifest, "target_directory"): ["datasets/shapes", "/", "$inputs.folder"],
    (ExportManifest, "format"): ["coco", "yolo", "pascal_voc"],
    (ExportManifest, "split"): [
        "train",
        "valid",
        "test",
        {"train": 1},
        {"train": 0.8, "test": 0},
        "$inputs.s",
    ],
    (ExportManifest, "class_names"): [
        ["a"],
        ["a", "b"],
        "a",
        ["x" * MAX_CLASS_NAME_LENGTH],
        None,
        "$inputs.names",
    ],
    (ExportManifest, "image_format"): ["jpg", "png"],
    (ExportManifest, "image_name"): ["photo.jpg", "", None, "$inputs.name"],
    (ExportManifest, "jpeg_quality"): [1, 95, 100, "$inputs.quality"],
    (ExportManifest, "cooldown_seconds"): [0, 0.5, 3600, "$inputs.cooldown"],
}
BAD = {
    (DetectionManifest, "images"): ["photo.jpg", 3, None],
    (DetectionManifest, "prompts"): [
        *NOT_WORDS,
        "x" * (MAX_PROMPT_LENGTH + 1),
        [],
        ["dog", ""],
        ["dog", " "],
        ["dog", 3],
        ["dog", ["cat"]],
        ["$steps.a.text", ""],
        many(MAX_PROMPTS + 1),
    ],
    (DetectionManifest, "model_version"): [*NOT_WORDS, "x" * (MAX_LENGTH + 1), ["some/model"]],
    (DetectionManifest, "confidence"): NOT_FROM_0_TO_1,
    (DetectionManifest, "iou_threshold"): NOT_FROM_0_TO_1,
    (DetectionManifest, "max_detections"): [0, 51, -1, 2.5, "10", True, None, []],
    (DetectionManifest, "class_agnostic_nms"): ["perhaps", 2, None, []],
    (TableManifest, "predictions"): ["boxes", 3, None],
    (TableManifest, "image"): ["photo.jpg", 3],
    (TableManifest, "image_name"): [3, ["photo.jpg"]],
    (TableManifest, "format"): ["xml", "", 3, None],
    (ExportManifest, "images"): ["photo.jpg", 3, None],
    (ExportManifest, "predictions"): ["boxes", 3, None],
    (ExportManifest, "target_directory"): NOT_WORDS,
    (ExportManifest, "format"): ["pickle", "", 3, None],
    (ExportManifest, "split"): [
        "dev",
        "",
        {},
        {"dev": 1},
        {"train": -1},
        {"train": True},
        {"train": "1"},
        3,
        None,
    ],
    (ExportManifest, "class_names"): [
        [],
        [""],
        [" "],
        ["a", 3],
        ["x" * (MAX_CLASS_NAME_LENGTH + 1)],
        "",
        3,
    ],
    (ExportManifest, "image_format"): ["gif", 3, None],
    (ExportManifest, "image_name"): [3, ["photo.jpg"]],
    (ExportManifest, "jpeg_quality"): [0, 101, 95.5, "95", True, None],
    (ExportManifest, "include_images_without_detections"): ["perhaps", 2, None],
    (ExportManifest, "fire_and_forget"): ["perhaps", 2, None],
    (ExportManifest, "disable_sink"): ["perhaps", 2, None],
    (ExportManifest, "cooldown_seconds"): [-1, "5", True, None],
}
# What JSON Schema has no words for.
ONLY_THE_MANIFEST_REFUSES = {
    (DetectionManifest, "prompts"): ["\ud800"],
    (DetectionManifest, "model_version"): ["a\x00b"],
    (DetectionManifest, "confidence"): [float("nan")],
    (DetectionManifest, "iou_threshold"): [float("nan")],
    (ExportManifest, "target_directory"): ["a\x00b"],
    (ExportManifest, "split"): [{"train": 0}, {"train": float("nan")}, {"train": float("inf")}],
    (ExportManifest, "cooldown_seconds"): [float("nan"), float("inf")],
}


def cases(*tables):
    return [
        pytest.param(manifest, name, value, id=f"{STEPS[manifest]['name']}.{name}={value!r}"[:60])
        for table in tables
        for (manifest, name), values in table.items()
        for value in values
    ]


def refusal(manifest, name, value):
    """The one error about a field."""
    with pytest.raises(ValidationError) as raised:
        manifest.model_validate(STEPS[manifest] | {name: value})
    (error,) = raised.value.errors()
    assert error["loc"] == (name,)
    return error["msg"]


@pytest.mark.parametrize(("manifest", "name", "value"), cases(GOOD))
def test_schema_and_manifest_accept_the_same_values(manifest, name, value):
    assert getattr(manifest.model_validate(STEPS[manifest] | {name: value}), name) == value
    assert SCHEMAS[manifest].is_valid(STEPS[manifest] | {name: value})


@pytest.mark.parametrize(("manifest", "name", "value"), cases(BAD))
def test_schema_and_manifest_refuse_the_same_values(manifest, name, value):
    refusal(manifest, name, value)
    assert not SCHEMAS[manifest].is_valid(STEPS[manifest] | {name: value})


@pytest.mark.parametrize(("manifest", "name", "value"), cases(BAD, ONLY_THE_MANIFEST_REFUSES))
def test_a_refusal_shows_the_field_and_the_value_and_the_fix(manifest, name, value):
    items = value if isinstance(value, list) else []
    shown = [f"`{name}` is {value!r}"[:60], *(f"`{name}` holds {item!r}"[:60] for item in [*items, ""])]

    message = refusal(manifest, name, value)

    assert any(message.startswith(start) for start in shown)
    assert "; give " in message
    assert len(message) < 300


@per_field
def test_every_field_has_bad_values_in_these_tests(manifest, name):
    assert BAD[manifest, name]


@per_field
def test_every_example_is_valid(manifest, name):
    for example in manifest.model_fields[name].examples:
        assert getattr(manifest.model_validate(STEPS[manifest] | {name: example}), name) == example


@per_field
def test_fields_refer_to_fields_and_values_that_exist(manifest, name):
    extra = manifest.model_fields[name].json_schema_extra or {}

    if "values_metadata" in extra:
        schema = SCHEMAS[manifest].schema["properties"][name]
        branches = schema.get("anyOf", [schema])
        assert [list(extra["values_metadata"])] == [branch["enum"] for branch in branches if "enum" in branch]
        assert all(value.keys() == {"name", "description"} for value in extra["values_metadata"].values())
    for other, condition in extra.get("relevant_for", {}).items():
        assert set(condition["values"]) < set(get_args(manifest.model_fields[other].annotation))


def test_titles_spell_abbreviations():
    titles = [field["title"] for schema in SCHEMAS.values() for field in schema.schema["properties"].values()]

    assert {"IoU Threshold", "Class-Agnostic NMS", "JPEG Quality"} <= set(titles)
    assert not [title for title in titles if re.search(r"\b(Iou|Nms|Jpeg)\b", title)]


@per_manifest
def test_long_descriptions_have_the_sections_of_core_blocks_in_their_order(manifest):
    description = SCHEMAS[manifest].schema["long_description"]

    sections = re.findall(r"^## (.*)$", description, re.MULTILINE)
    assert [section for section in sections if section != "Requirements"] == [
        "How This Block Works",
        "Example",
        "Common Use Cases",
        "Connecting to Other Blocks",
    ]
    for output in manifest.describe_outputs():
        assert f"`{output.name}`" in description


@per_manifest
def test_the_example_in_a_long_description_is_a_valid_step(manifest):
    (example,) = re.findall(r"```json\n(.*?)```", SCHEMAS[manifest].schema["long_description"], re.DOTALL)

    assert manifest.model_validate(json.loads(example))
    assert SCHEMAS[manifest].is_valid(json.loads(example))


@pytest.mark.parametrize(
    ("loads_local_packages", "weights_are_cached", "is_available"),
    [(True, False, True), (True, True, True), (False, True, True), (False, False, False)],
)
def test_detection_without_internet_needs_the_bundled_model_or_cached_weights(
    monkeypatch, loads_local_packages, weights_are_cached, is_available
):
    cached = [detection.RELEASED_MODEL] if weights_are_cached else []
    monkeypatch.setattr("inference.core.cache.air_gapped.is_model_cached", lambda model: model in cached)
    monkeypatch.setattr(
        detection, "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES", loads_local_packages
    )

    assert _get_air_gapped_info_for_block(DetectionManifest).available is is_available


@pytest.mark.parametrize("manifest", [TableManifest, ExportManifest])
def test_other_blocks_work_without_internet(manifest):
    assert _get_air_gapped_info_for_block(manifest).available


def test_these_tests_know_every_block():
    assert {block.get_manifest() for block in load_blocks()} == set(MANIFESTS)
