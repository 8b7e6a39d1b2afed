"""What is refused before a job starts."""

import copy

import pytest

from workflow_blocks.cluster.checks import check_definition
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.running.definitions import read_definition


def with_steps(definition, *steps, outputs=(), inputs=()):
    changed = copy.deepcopy(definition)
    changed["steps"] += steps
    changed["outputs"] += outputs
    changed["inputs"] += inputs
    return changed


PREDICTIONS = "$steps.detection.predictions"
TRACKER = {
    "type": "roboflow_core/byte_tracker@v3",
    "name": "tracker",
    "image": "$inputs.image",
    "detections": PREDICTIONS,
}
WEBHOOK = {"type": "roboflow_core/webhook_sink@v1", "name": "alert", "url": "http://h/", "method": "GET"}
FILE = {
    "type": "roboflow_core/local_file_sink@v1",
    "name": "file",
    "content": "$inputs.note",
    "file_type": "csv",
    "target_directory": "x",
    "file_name_prefix": "x",
    "output_mode": "append_log",
}
CACHE = {
    "type": "roboflow_core/cache_set@v1",
    "name": "cache",
    "image": "$inputs.image",
    "key": "k",
    "value": "$inputs.note",
}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (TRACKER, "`tracker` .* remembers earlier images"),
        (WEBHOOK, "`alert` .* has a cooldown"),
        (WEBHOOK | {"cooldown_seconds": 5}, "`alert` .* has a cooldown"),
        (FILE, "`file` .* writes files on the worker's disk"),
        (CACHE, "`cache` .* remembers earlier images"),
        ({"type": "no_such@v1", "name": "x"}, "cannot be run"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_steps_that_do_not_fit_a_cluster_are_refused(definition, step, message):
    note = {"type": "WorkflowParameter", "name": "note", "default_value": "-"}
    with pytest.raises(ClusterError, match=message):
        check_definition(with_steps(definition, step, inputs=[note]), {})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompts": {"a": []}}, "`prompts` holds"),
        ({"prompts": ["a"], "confidence": {"b": 0.5}}, "`confidence` has a threshold for 'b'"),
    ],
)
def test_parameters_that_are_wrong_for_all_images_are_refused(definition, parameters, message):
    confidence = {"type": "WorkflowParameter", "name": "confidence", "default_value": 0}
    changed = with_steps(definition, inputs=[confidence])
    changed["steps"][0]["confidence"] = "$inputs.confidence"

    with pytest.raises(ClusterError, match=message):
        check_definition(changed, parameters)


def test_steps_that_fit_are_allowed(definition):
    check_definition(with_steps(definition, WEBHOOK | {"cooldown_seconds": 0}), {})


def with_cooldown(definition, **default):
    entry = {"type": "WorkflowParameter", "name": "pause", **default}
    return with_steps(definition, WEBHOOK | {"cooldown_seconds": "$inputs.pause"}, inputs=[entry])


@pytest.mark.parametrize(("default", "parameters"), [({}, {"pause": 0}), ({"default_value": 0}, {})])
def test_a_cooldown_of_zero_may_be_a_parameter(definition, default, parameters):
    check_definition(with_cooldown(definition, **default), parameters)


@pytest.mark.parametrize("default", [{}, {"default_value": 0}])
def test_a_cooldown_above_zero_as_a_parameter_is_refused(definition, default):
    with pytest.raises(ClusterError, match="has a cooldown"):
        check_definition(with_cooldown(definition, **default), {"pause": 3})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompts": []}, "the workflow cannot be run: step 'detection': `prompts` is"),
        ({"prompts": ""}, "step 'detection': `prompts` "),
        ({"prompts": [" "]}, "step 'detection': `prompts` "),
        ({"prompts": {"a": []}}, "step 'detection': `prompts` "),
        ({"prompts": 5}, "step 'detection': `prompts` "),
        ({"prompts": ["dog"], "model": ""}, "step 'detection': `model_version` "),
        ({"prompts": ["dog"], "model": 5}, "step 'detection': `model_version` "),
    ],
    ids=str,
)
def test_values_that_no_image_can_be_run_with_are_refused(definition, parameters, message):
    with pytest.raises(ClusterError, match=message):
        check_definition(definition, parameters)


def test_a_parameter_that_a_step_needs_is_asked_for(definition):
    inputs = [{"type": "InferenceImage", "name": "image"}, {"type": "WorkflowParameter", "name": "prompts"}]
    inputs.append({"type": "WorkflowParameter", "name": "model", "default_value": "moondream2-demo"})

    with pytest.raises(ClusterError, match="`prompts` has no default; give --prompts"):
        check_definition(definition | {"inputs": inputs}, {})
    check_definition(definition | {"inputs": inputs}, {"prompts": "dog"})


def test_a_second_image_is_refused(definition):
    with pytest.raises(ClusterError, match=r"2 image inputs \(image, other\)"):
        check_definition(with_steps(definition, inputs=[{"type": "WorkflowImage", "name": "other"}]), {})


@pytest.mark.parametrize(
    "name", ["detect_and_visualize", "count_by_prompt", "redact_by_prompt", "crop_and_prompt_again"]
)
def test_images_as_outputs_are_refused(name):
    with pytest.raises(ClusterError, match="is an image, which a row of results does not hold"):
        check_definition(read_definition(name), {})


@pytest.mark.parametrize("name", ["alert_when_present", "check_with_yes_or_no", "detect_objects"])
def test_bundled_definitions_that_docs_name_run_on_a_cluster(name):
    definition = read_definition(name)
    has_cooldown = any(entry["name"] == "cooldown_seconds" for entry in definition["inputs"])
    check_definition(definition, {"cooldown_seconds": 0} if has_cooldown else {})


def test_all_problems_are_listed():
    with pytest.raises(ClusterError) as error:
        check_definition(read_definition("track_and_count_video"), {})
    for word in ("`visualization`", "`tracker`", "`counter`"):
        assert word in str(error.value)


def test_videos_as_inputs_are_refused(definition):
    with pytest.raises(ClusterError, match="videos"):
        check_definition(with_steps(definition, inputs=[{"type": "WorkflowVideoMetadata", "name": "v"}]), {})


def test_a_definition_without_an_image_is_refused(definition):
    with pytest.raises(ClusterError, match="no image input"):
        check_definition(definition | {"inputs": []}, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": (3, 2)}, "concurrency"),
        ({"cpus_per_worker": -1}, "negative"),
        ({"cpus_per_worker": float("nan")}, "negative"),
        ({"gpus_per_worker": float("nan")}, "negative"),
        ({"gpus_per_worker": float("inf")}, "negative"),
    ],
)
def test_wrong_settings_are_refused(definition, settings, message):
    with pytest.raises(ClusterError, match=message):
        ClusterConfig(definition, **settings)
