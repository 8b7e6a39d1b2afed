"""What an editor reads in the blocks' manifests: limits, names of values, descriptions and examples."""

import json
import re

import pytest
from inference.core.interfaces.http.handlers.workflows import _get_air_gapped_info_for_block
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from workflow_blocks import load_blocks
from workflow_blocks.blocks.common import model_manifest
from workflow_blocks.blocks.common.model_version import MAX_LENGTH
from workflow_blocks.blocks.common.prompts import MAX_PROMPTS
from workflow_blocks.blocks.detections_dataset_export.settings import MAX_CLASS_NAME_LENGTH
from workflow_blocks.blocks.detections_dataset_export.v1 import BlockManifest as ExportManifest
from workflow_blocks.blocks.detections_table.v1 import BlockManifest as TableManifest
from workflow_blocks.blocks.moondream2.questions import MAX_QUESTION_LENGTH, MAX_QUESTIONS
from workflow_blocks.blocks.moondream2.v1 import BlockManifest as Moondream2Manifest
from workflow_blocks.blocks.moondream2_prompt_detection import v1 as detection
from workflow_blocks.prompt_text import MAX_PROMPT_LENGTH

DetectionManifest = detection.BlockManifest
STEPS = {
    DetectionManifest: {
        "type": "workflow_blocks/moondream2_prompt_detection@v1",
        "name": "detection",
        "images": "$inputs.image",
        "prompts": "red car",
    },
    Moondream2Manifest: {
        "type": "workflow_blocks/moondream2@v1",
        "name": "moondream2",
        "images": "$inputs.image",
        "prompt": "What is it?",
        "classes": ["yes", "no"],
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
# Values that a block does not read.
ANYTHING = '{"\\\\S": {}}'
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
        {"pet": ["dog", "cat"], "person": "person"},
        {"pet": "$steps.a.texts", "person": ["man"]},
    ],
    (DetectionManifest, "model_version"): ["some/model", "/a/package", "x" * MAX_LENGTH, "$inputs.model"],
    (DetectionManifest, "confidence"): [0, 0.0, 0.5, 1, 1.0, "$inputs.confidence", {"red car": 0.5, "*": 0}],
    (DetectionManifest, "iou_threshold"): [0, 0.0, 0.5, 1, 1.0, "$steps.a.iou"],
    (DetectionManifest, "max_detections"): [1, 50, "$inputs.most"],
    (DetectionManifest, "class_agnostic_nms"): [True, False, "$inputs.agnostic"],
    (Moondream2Manifest, "prompt"): [
        "What is it?",
        "x" * MAX_QUESTION_LENGTH,
        ["a?", "a?"],
        many(MAX_QUESTIONS),
        {"colour": "Which colour is it?", "kind": "$steps.a.text"},
        ["$steps.a.text", "b?"],
        "$inputs.prompt",
    ],
    (Moondream2Manifest, "classes"): ["dog", ["dog", "cat"], many(MAX_PROMPTS), None, "$inputs.classes"],
    (Moondream2Manifest, "grounding_detection"): ["$steps.detection.predictions", None],
    (Moondream2Manifest, "model_version"): ["some/model", "/a/package", "$inputs.model"],
    (Moondream2Manifest, "parse_as"): ["text", "list", "number", "boolean", "$inputs.form"],
    (Moondream2Manifest, "max_tokens"): [1, 2048, "$inputs.most"],
    (Moondream2Manifest, "temperature"): [0, 0.5, 2, "$inputs.temperature"],
    (Moondream2Manifest, "seed"): [0, 2**32 - 1, "$inputs.seed"],
    (TableManifest, "format"): ["csv", "jsonl", "$inputs.format"],
    (TableManifest, "image_name"): ["photo.jpg", "", None, "$inputs.name"],
    (ExportManifest, "target_directory"): ["datasets/shapes", "/", "$inputs.folder"],
    (ExportManifest, "format"): ["coco", "yolo", "pascal_voc", "$inputs.format"],
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
        {"helmet": ["hard hat", "safety helmet"], "person": "person"},
        None,
        "$inputs.names",
    ],
    (ExportManifest, "image_format"): ["jpg", "png", "$steps.a.format"],
    (ExportManifest, "caption"): ["a dog on a bench", None, "$steps.a.output"],
    (ExportManifest, "image_name"): ["photo.jpg", "", None, "$inputs.name"],
    (ExportManifest, "labels"): ["all", "sure", "review", "$inputs.labels"],
    (ExportManifest, "sure_confidence"): [0, 0.5, 1, "$inputs.confidence", {"red car": 0.5, "*": 0}],
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
        {"pet": []},
        {"pet": ["dog", ""]},
        {"pet": " "},
        {"pet": 3},
        {"pet": {"dog": "dog"}},
        {"": "dog"},
        {"x" * (MAX_PROMPT_LENGTH + 1): "dog"},
        {"pet": many(MAX_PROMPTS + 1)},
    ],
    (DetectionManifest, "model_version"): [*NOT_WORDS, "x" * (MAX_LENGTH + 1), ["some/model"]],
    (DetectionManifest, "confidence"): [*NOT_FROM_0_TO_1, {"red car": 2}, {"": 0.5}, {"red car": None}],
    (DetectionManifest, "iou_threshold"): NOT_FROM_0_TO_1,
    (DetectionManifest, "max_detections"): [0, 51, -1, 2.5, "10", True, None, []],
    (DetectionManifest, "class_agnostic_nms"): ["perhaps", 2, None, []],
    (Moondream2Manifest, "images"): ["photo.jpg", 3, None],
    (Moondream2Manifest, "task_type"): ["ocr", "", 3, None, "$inputs.task"],
    (Moondream2Manifest, "prompt"): [
        "",
        " ",
        3,
        True,
        "x" * (MAX_QUESTION_LENGTH + 1),
        [],
        {},
        ["a?", ""],
        ["a?", 3],
        many(MAX_QUESTIONS + 1),
        {"colour": 3},
        {"": "a?"},
        {"colour": " "},
    ],
    (Moondream2Manifest, "classes"): ["", " ", 3, [], ["dog", ""], ["dog", 3], many(MAX_PROMPTS + 1)],
    (Moondream2Manifest, "grounding_detection"): ["boxes", 3, [0, 0, 1, 1]],
    (Moondream2Manifest, "model_version"): [*NOT_WORDS, ["some/model"]],
    (Moondream2Manifest, "parse_as"): ["json", "", 3, None],
    (Moondream2Manifest, "replace_class"): ["perhaps", 2, None],
    (Moondream2Manifest, "reasoning"): ["perhaps", 2, None],
    (Moondream2Manifest, "max_tokens"): [0, 2049, 2.5, "10", True, None],
    (Moondream2Manifest, "temperature"): [-0.1, 2.1, "0.5", True, None],
    (Moondream2Manifest, "seed"): [-1, 2**32, 0.5, "1", True, None],
    (Moondream2Manifest, "confidence"): NOT_FROM_0_TO_1,
    (Moondream2Manifest, "max_detections"): [0, 51, 2.5, "10", True, None],
    (Moondream2Manifest, "iou_threshold"): NOT_FROM_0_TO_1,
    (Moondream2Manifest, "class_agnostic_nms"): ["perhaps", 2, None, []],
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
        {},
        {"": "a"},
    ],
    (ExportManifest, "image_format"): ["gif", 3, None],
    (ExportManifest, "caption"): [3, ["a dog"], {"text": "a dog"}],
    (ExportManifest, "image_name"): [3, ["photo.jpg"]],
    (ExportManifest, "labels"): ["none", "", None, 1, ["sure"]],
    (ExportManifest, "sure_confidence"): [*NOT_FROM_0_TO_1, {"red car": 2}, {"": 0.5}, {}],
    (ExportManifest, "jpeg_quality"): [0, 101, 95.5, "95", True, None],
    (ExportManifest, "include_images_without_detections"): ["perhaps", 2, None],
    (ExportManifest, "fire_and_forget"): ["perhaps", 2, None],
    (ExportManifest, "disable_sink"): ["perhaps", 2, None],
    (ExportManifest, "cooldown_seconds"): [-1, "5", True, None],
}
# The engine does not resolve it in a definition; from a step it is a text like any other.
SELECTOR_IN_A_CLASS = {"pet": ["$inputs.pets"]}
# What JSON Schema has no words for.
ONLY_THE_MANIFEST_REFUSES = {
    (DetectionManifest, "prompts"): [
        "\ud800",
        {"a b": "dog", "a  b": "cat"},
        SELECTOR_IN_A_CLASS,
        {name: [f"{name} {number}" for number in range(40)] for name in ("a", "b")},
    ],
    (DetectionManifest, "model_version"): ["a\x00b"],
    (DetectionManifest, "confidence"): [float("nan")],
    (DetectionManifest, "iou_threshold"): [float("nan")],
    (ExportManifest, "target_directory"): ["a\x00b"],
    (ExportManifest, "split"): [{"train": 0}, {"train": float("nan")}, {"train": float("inf")}],
    (ExportManifest, "class_names"): [{"a b": "a", "a  b": "b"}],
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
    entries = [{key: value[key]} for key in value] if isinstance(value, dict) else []
    shown = [f"`{name}` is {value!r}"[:60]]
    shown += [f"`{name}` holds {item!r}"[:60] for item in [*items, *entries, ""]]

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


def choices(manifest, name):
    """The values that a field offers, in the schema."""
    schema = SCHEMAS[manifest].schema["properties"][name]
    (values,) = [branch["enum"] for branch in schema.get("anyOf", [schema]) if "enum" in branch]
    return values


@per_field
def test_fields_refer_to_fields_and_values_that_exist(manifest, name):
    extra = manifest.model_fields[name].json_schema_extra or {}

    if "values_metadata" in extra:
        assert list(extra["values_metadata"]) == choices(manifest, name)
        assert all(value.keys() == {"name", "description"} for value in extra["values_metadata"].values())
    for other, condition in extra.get("relevant_for", {}).items():
        assert set(condition["values"]) < set(choices(manifest, other))


@per_manifest
def test_the_engine_finds_selectors_in_all_dictionaries(manifest):
    """It reads `additionalProperties` only, which pydantic does not write if keys have a pattern."""
    schema = json.dumps(manifest.model_json_schema())

    with_pattern = [
        part for part in schema.split('"patternProperties": ')[1:] if not part.startswith(ANYTHING)
    ]
    assert with_pattern == []


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
    cached = [model_manifest.RELEASED_MODEL] if weights_are_cached else []
    monkeypatch.setattr("inference.core.cache.air_gapped.is_model_cached", lambda model: model in cached)
    monkeypatch.setattr(
        model_manifest, "ALLOW_INFERENCE_MODELS_DIRECTLY_ACCESS_LOCAL_PACKAGES", loads_local_packages
    )

    assert _get_air_gapped_info_for_block(DetectionManifest).available is is_available


@pytest.mark.parametrize("manifest", [TableManifest, ExportManifest])
def test_other_blocks_work_without_internet(manifest):
    assert _get_air_gapped_info_for_block(manifest).available


def test_these_tests_know_every_block():
    assert {block.get_manifest() for block in load_blocks()} == set(MANIFESTS)
