"""Small workflow definitions for tests."""


def detection_step(**fields):
    return {
        "type": "workflow_blocks/moondream2_prompt_detection@v1",
        "name": "detection",
        "images": "$inputs.image",
        "prompts": "$inputs.prompts",
        "model_version": "moondream2-demo",
    } | fields


def workflow(*steps, inputs=("prompts",), outputs):
    """A definition with an `image` input, more inputs by name, and outputs by selector."""
    return {
        "version": "1.0",
        "inputs": [
            {"type": "InferenceImage", "name": "image"},
            *({"type": "WorkflowParameter", "name": name} for name in inputs),
        ],
        "steps": list(steps),
        "outputs": [
            {"type": "JsonField", "name": name, "selector": selector} for name, selector in outputs.items()
        ],
    }


DETECTION_OUTPUTS = {
    "predictions": "$steps.detection.predictions",
    "counts": "$steps.detection.counts",
    "attributes": "$steps.detection.attributes",
}


def detection_workflow(inputs=("prompts",), **fields):
    return workflow(detection_step(**fields), inputs=inputs, outputs=DETECTION_OUTPUTS)
