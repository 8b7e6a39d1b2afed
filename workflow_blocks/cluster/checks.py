"""Refuses, before a job starts, what would only fail after hours or give wrong results on a cluster."""

from collections.abc import Iterator, Mapping
from typing import Any

from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.inference_host.engine import make_engine, make_model_manager
from workflow_blocks.installation import is_inference_missing
from workflow_blocks.running.errors import definition_problem
from workflow_blocks.running.parameters import (
    BATCH_INPUT,
    IMAGE_TYPES,
    ParameterError,
    check_values,
    image_input,
    parameter_inputs,
    values_in_force,
)

# Codes by which Inference's blocks declare what they need; see `get_actual_restrictions` of its blocks.
_STATE_CODES = {
    "stateful_video_state_resets_on_stateless_http",
    "temporal_block_no_benefit_on_still_image",
    "aggregation_buffer_resets_on_stateless_http",
    "in_process_cache_not_shared_across_workers",
}
_COOLDOWN_CODE = "cooldown_timer_resets_on_stateless_http"
_LOCAL_FILE_CODES = {"writes_to_deployment_volume_not_retrievable", "ephemeral_container_disk_loses_writes"}
_LAN_CODES = {"requires_lan_access_to_device"}
_VIDEO_INPUT = "WorkflowVideoMetadata"
_IMAGE_KIND = "image"
_PASSING_ON = "roboflow_core/first_non_empty_or_default@"


def check_definition(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Compiles a definition, without loading models, and checks that it can run on a cluster.

    Images must not depend on each other, and the steps must take the values of the parameters.

    Raises:
        ClusterError: it cannot run on a cluster; the message says which step or output must change.
    """
    try:
        image_input(definition)
        compiled = make_engine(dict(definition), make_model_manager())._engine._compiled_workflow
    except ParameterError as error:
        raise ClusterError(f"the workflow cannot be run: {error}") from error
    except Exception as error:  # some wrong definitions raise KeyError and the like
        if isinstance(error, ImportError) and is_inference_missing(error):
            raise
        raise ClusterError(f"the workflow cannot be run: {definition_problem(error, definition)}") from error
    inputs = parameter_inputs(definition)
    values = {
        name: value
        for name, value in values_in_force(definition, parameters).items()
        if inputs[name]["type"] != BATCH_INPUT
    }
    problems = [*_problems_of_inputs(definition, parameters), *_problems_of_outputs(definition)]
    for name, step in compiled.steps.items():
        problems += _problems_of_step(name, step.manifest, values)
    if problems:
        raise ClusterError("the workflow cannot run on a cluster:\n" + "\n".join(f"- {p}" for p in problems))
    try:
        check_values(compiled.input_substitutions, definition, parameters)
    except ParameterError as error:
        raise ClusterError(f"the workflow cannot be run: {error}") from error


def _problems_of_inputs(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[str]:
    for entry in definition["inputs"]:
        if entry.get("type") == _VIDEO_INPUT:
            yield f"the input `{entry.get('name')}` is of videos; use workflow-blocks run for videos"
    images = [str(entry["name"]) for entry in definition["inputs"] if entry.get("type") in IMAGE_TYPES]
    if len(images) > 1:
        yield f"it has {len(images)} image inputs ({', '.join(images)}); a row has one image, so leave one"
    for name, entry in parameter_inputs(definition).items():
        is_required = "default_value" not in entry and entry["type"] == BATCH_INPUT
        if is_required and name not in parameters:
            yield f"the parameter `{name}` has no default; give --{name}"


def _problems_of_outputs(definition: Mapping[str, Any]) -> Iterator[str]:
    from roboflow_workflows.execution_engine.v1.introspection.outputs_discovery import (
        describe_workflow_outputs,
    )

    for output in definition["outputs"]:
        name = output["name"]
        sources = [
            {**output, "name": str(number), "selector": source}
            for number, source in enumerate(_sources(definition, output["selector"]))
        ]
        found = describe_workflow_outputs({**definition, "outputs": sources}).values()
        kinds = [part for kind in found for part in (kind.values() if isinstance(kind, dict) else [kind])]
        if any(_IMAGE_KIND in part for part in kinds):
            yield (
                f"the output `{name}` is an image, which a row of results does not hold; remove it and the "
                "steps that draw it from the definition"
            )


def _sources(definition: Mapping[str, Any], selector: str) -> list[str]:
    """A selector, or what it stands for: some steps give what they get, and do not say of which kind."""
    for step in definition["steps"]:
        if selector == f"$steps.{step['name']}.output" and step["type"].startswith(_PASSING_ON):
            return [source for item in step["data"] for source in _sources(definition, item)]
    return [selector]


def _problems_of_step(name: str, manifest: Any, values: Mapping[str, Any]) -> Iterator[str]:
    codes = _restriction_codes(manifest)
    if codes & _STATE_CODES:
        yield (
            f"the step `{name}` ({manifest.type}) remembers earlier images, but here each worker sees some "
            "images in any order; remove it, or use workflow-blocks run"
        )
    cooldown = getattr(manifest, "cooldown_seconds", None)
    if isinstance(cooldown, str):
        cooldown = values.get(cooldown.removeprefix("$inputs."))
    if _COOLDOWN_CODE in codes and cooldown != 0:
        yield (
            f"the step `{name}` ({manifest.type}) has a cooldown, which each worker would count by itself; "
            "set its `cooldown_seconds` to 0"
        )
    if codes & _LOCAL_FILE_CODES:
        yield (
            f"the step `{name}` ({manifest.type}) writes files on the worker's disk; remove it: the rows "
            "have the detections, and workflow-blocks export-dataset makes datasets of them"
        )
    if codes & _LAN_CODES:
        yield f"the step `{name}` ({manifest.type}) talks to a device of the local network; remove it"


def _restriction_codes(manifest: Any) -> set[str]:
    try:
        found = manifest.get_actual_restrictions(ignore_environment_restrictions=True)
        return {restriction.code for restriction in found.items}
    except Exception:  # a block of others that declares nothing useful
        return set()
