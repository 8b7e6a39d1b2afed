import pytest
from pydantic import ValidationError

from workflow_blocks.blocks.common.model_version import RELEASED_MODEL
from workflow_blocks.blocks.common.prompts import MAX_PROMPTS
from workflow_blocks.blocks.moondream2_prompt_detection.v1 import BlockManifest
from workflow_blocks.bundled_model import DEMO_MODEL

MINIMAL = {
    "type": "workflow_blocks/moondream2_prompt_detection@v1",
    "name": "detection",
    "images": "$inputs.image",
    "prompts": "red car",
}


def test_defaults():
    manifest = BlockManifest.model_validate(MINIMAL)

    assert manifest.model_version == RELEASED_MODEL
    assert manifest.confidence == 0.0
    assert manifest.max_detections == 50
    assert manifest.iou_threshold == 0.5
    assert manifest.class_agnostic_nms is False


@pytest.mark.parametrize(
    "prompts",
    [
        ["$steps.a.text", "dog"],
        "$steps.a.texts",
        ["$inputs.one"],
        {"pet": "$steps.a.texts", "person": ["man", "woman"]},
    ],
)
def test_prompts_take_selectors(prompts):
    assert BlockManifest.model_validate(MINIMAL | {"prompts": prompts}).prompts == prompts


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("prompts", " ", "`prompts` is ' '; give a prompt such as 'red car' (1 to 256 Unicode characters"),
        ("prompts", [], "`prompts` is []; give a prompt such as 'red car'"),
        ("prompts", ["dog", ""], "`prompts` holds ''; give"),
        ("prompts", ["$steps.a.text", 3], "`prompts` holds 3; give"),
        (
            "prompts",
            {"pet": ["dog", "$steps.a.text"]},
            "`prompts` holds {'pet': ['dog', '$steps.a.text']}; give",
        ),
        ("prompts", "x" * 300, "xxx... (300 characters); give"),
        ("prompts", ["x"] * 3 + [str(i) for i in range(MAX_PROMPTS)], "(67 items); give"),
        (
            "model_version",
            3,
            "`model_version` is 3; give a model id such as 'moondream2/",
        ),
        ("confidence", 5, "`confidence` is 5; give a number from 0 to 1"),
        ("max_detections", 51, "`max_detections` is 51; give a whole number from 1 to 50"),
        ("class_agnostic_nms", "perhaps", "`class_agnostic_nms` is 'perhaps'; give true or false"),
        ("images", "photo.jpg", "`images` is 'photo.jpg'; give a value such as '$inputs.image'"),
    ],
)
def test_an_error_has_the_field_and_the_value_and_the_fix(field, value, problem):
    with pytest.raises(ValidationError) as error:
        BlockManifest.model_validate(MINIMAL | {field: value})

    assert problem in error.value.errors()[0]["msg"]


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


def test_the_interfaces_of_model_blocks_are_declared():
    manifest = BlockManifest.model_validate(MINIMAL)

    assert manifest.get_execution_engine_compatibility() == ">=1.3.0,<2.0.0"
    restrictions = {"slow_without_gpu", "hosted_api_has_no_moondream2"}
    assert {restriction.code for restriction in manifest.get_restrictions()} == restrictions
    discovery = manifest.get_actual_restrictions(ignore_environment_restrictions=True)
    assert discovery.complete
    assert {item.code for item in discovery.items} == restrictions
    assert [output.name for output in manifest.describe_outputs()] == [
        "predictions",
        "counts",
        "attributes",
    ]


@pytest.mark.parametrize(
    ("prompts", "confidence", "unknown"),
    [
        ({"pet": ["dog", "cat"]}, {"pet": 0.1, "*": 0.2}, None),
        ({"pet": ["dog", "cat"]}, {"dog": 0.1}, "dog"),
        (["dog", "cat"], {"dog": 0.1}, None),
        (["dog", "cat"], {"dgo": 0.1}, "dgo"),
        ("dog", {"cat": 0.1}, "cat"),
        ("$inputs.prompts", {"cat": 0.1}, None),
        (["dog", "$inputs.other"], {"cat": 0.1}, None),
    ],
)
def test_thresholds_are_of_classes_of_the_prompts(prompts, confidence, unknown):
    step = MINIMAL | {"prompts": prompts, "confidence": confidence}
    if unknown is None:
        assert BlockManifest.model_validate(step).confidence == confidence
        return

    with pytest.raises(ValidationError, match=f"`confidence` has a threshold for '{unknown}'; give"):
        BlockManifest.model_validate(step)
