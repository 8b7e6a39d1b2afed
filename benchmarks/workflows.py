"""Our block, and as many core blocks as there are prompts, in Inference's own engine.

Core blocks run on this plugin's runtime, too. Its image cache, which is on by default, encodes an image once
for all of them. Without it each block encodes the image, as with Inference's own class.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.measure import unseen
from workflow_blocks.inference_host.engine import make_engine, make_model_manager
from workflow_blocks.moondream2.image_crops import UInt8Array

# Colour and shape, so that the demo model has something to find.
PROMPTS = [
    f"{colour} {shape}"
    for colour in ("red", "green", "blue", "yellow")
    for shape in ("circle", "square", "triangle", "star")
]

OURS = "our block"
CACHED, NOT_CACHED = "core blocks", "core blocks, no image cache"

Run = Callable[[UInt8Array | list[UInt8Array]], Any]


@contextmanager
def without_image_cache() -> Iterator[None]:
    """Models that are loaded here store no encoded images."""
    with mock.patch.dict(os.environ, MOONDREAM2_IMAGE_CACHE_MB="0"):
        yield


class Models(NamedTuple):
    """Model managers that have loaded a package: with the image cache, and without."""

    cached: Any
    not_cached: Any


def load_models(package: Path, image: UInt8Array) -> Models:
    """Loads a package twice. All blocks run once, since first runs are slow and load the model.

    For our block, the bundled model's folder is the same as its id; a core block loads it again.
    """
    models = Models(make_model_manager(), make_model_manager())

    def run_all(manager: Any) -> None:
        for blocks in (our_block, core_blocks):
            blocks(manager, str(package), PROMPTS[:1])(image)

    run_all(models.cached)
    with without_image_cache():
        run_all(models.not_cached)
    return models


def block_runs(
    models: Models,
    package: Path,
    prompts: Sequence[str],
    images: Sequence[UInt8Array],
    steps_at_once: int = 1,
) -> dict[str, Callable[[], object]]:
    """The same work on new images each time, by our block and by core blocks with and without the cache."""
    options = {"max_concurrent_steps": steps_at_once}
    runs = {
        OURS: our_block(models.cached, str(package), prompts, **options),
        CACHED: core_blocks(models.cached, str(package), prompts, **options),
        NOT_CACHED: core_blocks(models.not_cached, str(package), prompts, **options),
    }
    return {name: partial(_run_on_new_images, run, images) for name, run in runs.items()}


def _run_on_new_images(run: Run, images: Sequence[UInt8Array]) -> object:
    return run([unseen(image) for image in images])


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
