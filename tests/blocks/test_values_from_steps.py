"""Values that arrive from other steps. The engine does not check them against a manifest."""

import pytest
from inference.core.workflows.errors import ClientCausedStepExecutionError, WorkflowError

from tests.blocks.test_manifests import (
    BAD,
    FIELDS,
    ONLY_THE_MANIFEST_REFUSES,
    SELECTOR_IN_A_CLASS,
    STEPS,
    ExportManifest,
    Moondream2Manifest,
    TableManifest,
)
from tests.scenes import image_bgr
from tests.workflows.definitions import detection_step, workflow
from workflow_blocks.blocks.moondream2.tasks import DEFAULT_TASK, TASKS

# An image may have none of its own: nothing is looked for in it.
NO_PROMPTS = ("prompts", [])


def workflow_with(step, name, value):
    """The step `tested`, with a field's value from a step whose output is of any kind."""
    given = {
        "type": "roboflow_core/expression@v1",
        "name": "given",
        "data": {},
        "switch": {
            "type": "CasesDefinition",
            "cases": [],
            "default": {"type": "StaticCaseResult", "value": value},
        },
    }
    return workflow(
        given,
        detection_step(prompts="star"),
        step | {"name": "tested", name: "$steps.given.output"},
        inputs=(),
        outputs={"all": "$steps.tested.*"},
    )


def step_that_reads(manifest, name):
    """A step; of a block with tasks, one whose task reads the field."""
    if manifest is not Moondream2Manifest:
        return STEPS[manifest]
    task = next((task for task in TASKS if name in TASKS[task].fields), DEFAULT_TASK)
    step = STEPS[manifest] | {"task_type": task, "model_version": "moondream2-demo"}
    if "grounding_detection" in TASKS[task].required:
        step["grounding_detection"] = "$steps.detection.predictions"
    return step


def bad_values():
    """Every value that a manifest refuses, but None: a step that waits for it does not run.

    All but the first of each field take long.
    """
    for (manifest, name), refused in BAD.items():
        if name == "task_type":  # it decides the outputs, and takes no selector
            continue
        step = step_that_reads(manifest, name)
        values = [
            value
            for value in (*refused, *ONLY_THE_MANIFEST_REFUSES.get((manifest, name), ()))
            if value is not None and value != SELECTOR_IN_A_CLASS and (name, value) != NO_PROMPTS
        ]
        for index, value in enumerate(values):
            marks = [pytest.mark.long] if index else []
            yield pytest.param(step, name, value, marks=marks, id=f"{step['name']}.{name}={value!r}"[:60])


@pytest.mark.parametrize(("step", "name", "value"), bad_values())
def test_a_bad_value_from_a_step_is_a_client_error(run_workflow, tmp_path, monkeypatch, step, name, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClientCausedStepExecutionError, match="'tested'") as error:
        run_workflow(workflow_with(step, name, value), image=image_bgr(0))

    assert error.value.status_code == 400
    assert f"`{name}` " in error.value.public_message
    assert "; give " in error.value.public_message
    assert not list(tmp_path.iterdir())


def test_every_field_that_takes_a_selector_has_bad_values():
    tested = {(parameter.values[0]["type"], parameter.values[1]) for parameter in bad_values()}

    fields = {(STEPS[field.values[0]]["type"], field.values[1]) for field in FIELDS}
    assert fields - tested == {("workflow_blocks/moondream2@v1", "task_type")}
    assert tested <= fields


def test_no_prompts_from_a_step_find_nothing(run_workflow):
    step = detection_step() | {"name": "tested"}

    (result,) = run_workflow(workflow_with(step, *NO_PROMPTS), image=image_bgr(0))

    assert len(result["all"]["predictions"]) == 0
    assert result["all"]["counts"] == {}
    assert result["all"]["attributes"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", "pascal_voc"),
        ("image_format", "png"),
        ("cooldown_seconds", 0.5),
        ("cooldown_seconds", 2),
        ("jpeg_quality", 30),
        ("split", {"valid": 1}),
        ("class_names", ["star"]),
    ],
)
def test_the_export_takes_values_from_steps(run_workflow, tmp_path, name, value):
    step = {
        "type": "workflow_blocks/detections_dataset_export@v1",
        "images": "$inputs.image",
        "predictions": "$steps.detection.predictions",
        "target_directory": str(tmp_path / "set"),
    }

    (result,) = run_workflow(workflow_with(step, name, value), image=image_bgr(0))

    assert result["all"]["message"] == "Image written"
    suffixes = {file.suffix for file in (tmp_path / "set").rglob("*")}
    assert (".xml" in suffixes) is (value == "pascal_voc")
    assert (".png" in suffixes) is (value == "png")
    assert (tmp_path / "set" / "valid").is_dir() is (name == "split")


@pytest.mark.parametrize("kind", ["integer", "float", "float_zero_to_one"])
def test_a_cooldown_takes_numbers_of_every_kind(run_workflow, tmp_path, kind):
    definition = workflow(
        detection_step(prompts="star"),
        {
            "type": "workflow_blocks/detections_dataset_export@v1",
            "name": "export",
            "images": "$inputs.image",
            "predictions": "$steps.detection.predictions",
            "target_directory": str(tmp_path / "set"),
            "cooldown_seconds": "$inputs.seconds",
        },
        inputs=(),
        outputs={"throttled": "$steps.export.throttling_status"},
    )
    definition["inputs"].append({"type": "WorkflowParameter", "name": "seconds", "kind": [kind]})

    results = run_workflow(definition, image=[image_bgr(0)] * 2, seconds=1)

    assert [result["throttled"] for result in results] == [False, True]


@pytest.mark.parametrize("value", [[[1, 2, 3, 4]], (1, 2), {"x": 1}])
@pytest.mark.parametrize("step", [STEPS[TableManifest], STEPS[ExportManifest]])
def test_other_objects_are_no_predictions(run_workflow, tmp_path, step, value):
    with pytest.raises(WorkflowError) as error:
        run_workflow(workflow_with(step, "predictions", value), image=image_bgr(0))

    assert error.value.status_code == 400
    assert "`predictions` is " in error.value.public_message
