import pytest
from pydantic import ValidationError

from workflow_blocks.blocks.common.model_version import DEMO_MODEL, RELEASED_MODEL
from workflow_blocks.blocks.moondream2_prompt_detection.prompts import MAX_PROMPTS
from workflow_blocks.blocks.moondream2_prompt_detection.v1 import BlockManifest

MINIMAL = {
    "type": "workflow_blocks/moondream2_prompt_detection@v1",
    "name": "detection",
    "images": "$inputs.image",
    "prompts": "red car",
}

EXAMPLES = [
    pytest.param(name, example, id=f"{name}={example}")
    for name, field in BlockManifest.model_fields.items()
    for example in field.examples or []
]


def test_defaults():
    manifest = BlockManifest.model_validate(MINIMAL)

    assert manifest.model_version == RELEASED_MODEL
    assert manifest.confidence == 0.0
    assert manifest.max_detections == 50
    assert manifest.iou_threshold == 0.5
    assert manifest.class_agnostic_nms is False


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_every_example_is_valid(name, example):
    manifest = BlockManifest.model_validate(MINIMAL | {name: example})

    assert getattr(manifest, name) == example


@pytest.mark.parametrize("prompts", [["$steps.a.text", "dog"], "$steps.a.texts", ["$inputs.one"]])
def test_prompts_take_selectors(prompts):
    assert BlockManifest.model_validate(MINIMAL | {"prompts": prompts}).prompts == prompts


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("prompts", "", "blank"),
        ("prompts", " ", "blank"),
        ("prompts", [], "empty list"),
        ("prompts", ["dog", ""], "blank"),
        ("prompts", ["$steps.a.text", ""], "blank"),
        ("prompts", ["dog", 3], "3, which is no string"),
        ("prompts", 3, "`prompts` is 3"),
        ("prompts", None, "`prompts` is None"),
        ("prompts", "x" * 300, "300 characters"),
        ("prompts", ["x"] * 3 + [str(i) for i in range(MAX_PROMPTS)], "at most"),
        ("model_version", "", "`model_version` is ''"),
        ("model_version", 3, "`model_version` is 3"),
        ("confidence", 1.5, "`confidence` is 1.5; give a number from 0 to 1"),
        ("confidence", "high", "`confidence` is 'high'"),
        ("iou_threshold", -1, "`iou_threshold` is -1"),
        ("max_detections", 0, "`max_detections` is 0; give a whole number from 1 to 50"),
        ("max_detections", 51, "`max_detections` is 51"),
        ("max_detections", 2.5, "`max_detections` is 2.5"),
        ("class_agnostic_nms", "perhaps", "class_agnostic_nms"),
        ("images", "photo.jpg", "images"),
    ],
)
def test_a_bad_value_is_named_with_its_mend(field, value, problem):
    with pytest.raises(ValidationError) as error:
        BlockManifest.model_validate(MINIMAL | {field: value})

    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("model_version", "models"),
    [
        pytest.param(RELEASED_MODEL, [RELEASED_MODEL], id="released"),
        pytest.param(DEMO_MODEL, [], id="bundled"),
        pytest.param("/models/mine", [], id="local package"),
        pytest.param("$inputs.model", ["$inputs.model"], id="selector"),
    ],
)
def test_dependent_resources_are_the_models_that_inference_fetches(model_version, models):
    manifest = BlockManifest.model_validate(MINIMAL | {"model_version": model_version})

    resources = manifest.discover_dependent_resources()

    assert [resource.metadata.model_id for resource in resources] == models


def test_a_local_model_behind_a_selector_is_not_loaded_ahead():
    manifest = BlockManifest.model_validate(MINIMAL | {"model_version": "$inputs.model"})

    (resource,) = manifest.discover_dependent_resources()

    assert resource.metadata.model_id_resolver(DEMO_MODEL) is None
    assert resource.metadata.model_id_resolver(RELEASED_MODEL) == RELEASED_MODEL


def test_what_the_engine_asks_of_a_model_block_is_declared():
    manifest = BlockManifest.model_validate(MINIMAL)

    assert manifest.get_execution_engine_compatibility() == ">=1.3.0,<2.0.0"
    assert manifest.get_supported_model_variants() == [RELEASED_MODEL]
    restrictions = {"slow_without_gpu", "hosted_api_has_no_moondream2"}
    assert {restriction.code for restriction in manifest.get_restrictions()} == restrictions
    discovery = manifest.get_actual_restrictions(ignore_environment_restrictions=True)
    assert discovery.complete
    assert {item.code for item in discovery.items} == restrictions
    assert [output.name for output in manifest.describe_outputs()] == ["predictions", "counts"]
