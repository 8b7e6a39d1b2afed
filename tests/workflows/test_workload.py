"""What Inference's route `/workflows/describe_workload` says of definitions with our blocks."""

import json

import pytest
from inference.core.interfaces.http.handlers.workflows import handle_describe_workflow_workload
from roboflow_workflows.core_steps.sinks.local_file.v1 import BlockManifest as LocalFileSinkManifest
from roboflow_workflows.core_steps.sinks.webhook.v1 import BlockManifest as WebhookManifest

from workflow_blocks.blocks.detections_dataset_export.v1 import BlockManifest as ExportManifest
from workflow_blocks.running.definitions import read_definition, workflow_names

DOMAINS = ("resources", "operations", "restrictions")
DEMO, RELEASED = "moondream2-demo", "moondream2/moondream2_2b_jul24"


def workload_of(definition):
    return handle_describe_workflow_workload(definition=definition, api_key="key").model_dump(mode="json")


def unknowns(workload):
    """The reasons for which the description of a step is incomplete."""
    return [
        reason
        for step in workload["steps"]
        for domain in DOMAINS
        if not step[domain]["complete"]
        for reason in step[domain]["unknown_reasons"]
    ]


@pytest.mark.parametrize("name", workflow_names())
def test_nothing_is_unknown_of_a_bundled_definition_but_the_model_that_a_caller_names(name):
    reasons = unknowns(workload_of(read_definition(name)))

    assert {reason["code"] for reason in reasons} == {"unresolved_selector"}
    assert {reason["details"]["selector"] for reason in reasons} == {"$inputs.model"}


@pytest.mark.parametrize(("model", "platform_models"), [(DEMO, set()), (RELEASED, {RELEASED})])
@pytest.mark.parametrize("name", workflow_names())
def test_a_bundled_definition_with_its_model_is_described_completely(name, model, platform_models):
    text = json.dumps(read_definition(name)).replace("$inputs.model", model)

    workload = workload_of(json.loads(text))

    assert unknowns(workload) == []
    assert workload["summary"]["models"]["complete"]
    models = {entry["model_id"] for entry in workload["summary"]["models"]["items"]}
    assert {model for model in models if "moondream2" in model} == platform_models


def export_manifest(**fields):
    return ExportManifest(
        type="workflow_blocks/detections_dataset_export@v1",
        name="export",
        images="$inputs.image",
        predictions="$steps.detection.predictions",
        target_directory="set",
        **fields,
    )


def core_restrictions():
    sink = LocalFileSinkManifest(
        type="roboflow_core/local_file_sink@v1",
        name="sink",
        content="$steps.a.b",
        output_mode="append_log",
        target_directory="set",
    )
    webhook = WebhookManifest(
        type="roboflow_core/webhook_sink@v1", name="hook", url="http://a", method="POST"
    )
    return [
        restriction
        for manifest in (sink, webhook)
        for restriction in manifest.get_actual_restrictions(ignore_environment_restrictions=True).items
    ]


def by_code(restriction):
    return restriction.code


def test_the_export_has_the_restrictions_of_core_sinks_with_files_and_cooldowns():
    found = export_manifest().get_actual_restrictions(ignore_environment_restrictions=True)

    assert found.complete
    assert sorted(found.items, key=by_code) == sorted(core_restrictions(), key=by_code)
    assert ExportManifest.get_restrictions() == [
        *LocalFileSinkManifest.get_restrictions(),
        *WebhookManifest.get_restrictions(),
    ]


def test_fire_and_forget_is_a_restriction_where_the_definition_sets_it():
    found = export_manifest(fire_and_forget=True).get_actual_restrictions()
    unknown = export_manifest(fire_and_forget="$inputs.background").get_actual_restrictions()

    assert "fire_and_forget_hides_persistence_failures" in [item.code for item in found.items]
    assert [reason.details["field"] for reason in unknown.unknown_reasons] == ["fire_and_forget"]
