"""Our block, and as many core blocks as there are prompts, in Inference's own engine."""

from collections.abc import Callable, Sequence
from typing import Any

from workflow_blocks.inference_host.engine import make_engine
from workflow_blocks.moondream2.image_crops import UInt8Array

# Colour and shape, so that the demo model has something to find.
PROMPTS = [
    f"{colour} {shape}"
    for colour in ("red", "green", "blue", "yellow")
    for shape in ("circle", "square", "triangle", "star")
]

Run = Callable[[UInt8Array | list[UInt8Array]], Any]


def our_block(model_manager: Any, package: str, prompts: Sequence[str], **engine: Any) -> Run:
    """One step with all prompts; `engine` is more of `make_engine`'s arguments."""
    step = {
        "type": "workflow_blocks/moondream2_prompt_detection@v1",
        "name": "detection",
        "images": "$inputs.image",
        "prompts": list(prompts),
        "model_version": package,
        "iou_threshold": 1.0,
    }
    return _runner(model_manager, [step], engine)


def core_blocks(model_manager: Any, package: str, prompts: Sequence[str], **engine: Any) -> Run:
    """A step for each prompt; `engine` is more of `make_engine`'s arguments."""
    steps = [
        {
            "type": "roboflow_core/moondream2@v1",
            "name": f"detection_{index}",
            "images": "$inputs.image",
            "prompt": prompt,
            "model_version": package,
        }
        for index, prompt in enumerate(prompts)
    ]
    return _runner(model_manager, steps, engine)


def _runner(model_manager: Any, steps: list[dict[str, Any]], engine_options: dict[str, Any]) -> Run:
    outputs = [
        {"type": "JsonField", "name": step["name"], "selector": f"$steps.{step['name']}.predictions"}
        for step in steps
    ]
    definition = {
        "version": "1.0",
        "inputs": [{"type": "InferenceImage", "name": "image"}],
        "steps": steps,
        "outputs": outputs,
    }
    engine = make_engine(definition, model_manager, **engine_options)
    return lambda images: engine.run(runtime_parameters={"image": images})
