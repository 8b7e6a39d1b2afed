"""What the sinks of a workflow say in its outputs."""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from workflow_blocks.running.errors import FileError


def check_sinks(definition: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Checks the status of the sinks among a workflow's outputs.

    Raises:
        FileError: a sink failed.
    """
    for name, message in sink_outputs(definition, "error_status").items():
        if is_true(outputs.get(name)):
            raise FileError(f"{name}: {outputs.get(message, 'the workflow has no output for the reason')}")


def sink_outputs(definition: Mapping[str, Any], status: str) -> dict[str, str]:
    """The workflow's outputs that give a status of a sink, each with the output of that sink's message.

    Args:
        definition: the workflow.
        status: what sinks call it: `error_status` or `throttling_status`.
    """
    names = {str(entry.get("selector")): entry["name"] for entry in definition["outputs"]}
    return {
        names[f"$steps.{step}.{status}"]: names.get(f"$steps.{step}.message", "")
        for step in _sinks_of(definition)
        if f"$steps.{step}.{status}" in names
    }


def message_outputs(definition: Mapping[str, Any]) -> set[str]:
    """The workflow's outputs that give the message of a sink."""
    selectors = {f"$steps.{step}.message" for step in _sinks_of(definition)}
    return {entry["name"] for entry in definition["outputs"] if entry.get("selector") in selectors}


def is_true(output: object) -> bool:
    """Whether an output is true, or one of its items if crops or slices made it a list."""
    return any(map(is_true, output)) if isinstance(output, list) else output is True


def _sinks_of(definition: Mapping[str, Any]) -> list[str]:
    return [str(step.get("name")) for step in definition["steps"] if step.get("type") in sink_types()]


@cache
def sink_types() -> frozenset[str]:
    """The types of the blocks that are sinks, with the names they had before, of Inference and all plugins.

    Other blocks have an `error_status`, too: an answer of a model may be of another form than was asked for.
    """
    from inference.core.workflows.execution_engine.introspection.blocks_loader import load_workflow_blocks

    return frozenset(
        name
        for block in load_workflow_blocks()
        if (block.manifest_class.model_config.get("json_schema_extra") or {}).get("block_type") == "sink"
        for name in get_args(block.manifest_class.model_fields["type"].annotation)
    )
