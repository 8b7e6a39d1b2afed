"""Where the time of one image and eight prompts goes, against what the machine can do."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import (
    drawn_image,
    finish_queued_work,
    machine,
    matrix_product_rate,
    memory_bandwidth,
    show,
)
from benchmarks.packages import DEVICE, LARGE, LARGE_NAME, OBJECTS_PER_PROMPT, random_package
from benchmarks.workflows import PROMPTS, without_image_cache
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.moondream2 import runtime
from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.layers import has_bfloat16_instructions
from workflow_blocks.moondream2.runtime import Query, Runtime

PROMPTS_AT_ONCE = 8
CROPS, VISION, PREFIX, PREFILL, DECODE = "crops", "vision encoder", "image prefix", "prefill", "decode steps"
STAGES = (CROPS, VISION, PREFIX, PREFILL, DECODE)


class StageTimer:
    """Adds up seconds and calls of the runtime's steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.crops = 0

    @contextmanager
    def watch(self, detector: Runtime) -> Iterator[None]:
        """Times what the detector does until the end of the block."""
        model = detector.model
        with ExitStack() as patches:
            for owner, name, stage_of in (
                (runtime, "images_to_crops", lambda *_: CROPS),
                (model.vision, "encode_crops", self._vision),
                (model.vision, "project", lambda *_: VISION),
                (model.text, "read_prefix", lambda *_: PREFIX),
                (model.text, "forward", lambda tokens, _: PREFILL if tokens.shape[1] > 1 else DECODE),
            ):
                timed = self._timed(getattr(owner, name), stage_of)
                patches.enter_context(mock.patch.object(owner, name, timed))
            yield

    def _vision(self, crops: torch.Tensor) -> str:
        self.crops += len(crops)
        return VISION

    def _timed(self, step: Callable[..., Any], stage_of: Callable[..., str]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            stage = stage_of(*arguments)
            finish_queued_work()
            start = time.perf_counter()
            result = step(*arguments, **named)
            finish_queued_work()
            self.seconds[stage] += time.perf_counter() - start
            self.calls[stage] += 1
            return result

        return timed


def operations(config: Moondream2Config, crops: int, steps: int, prompt_tokens: int) -> dict[str, float]:
    """Floating-point operations of the matrix products of each stage."""
    vision, text = config.vision, config.text
    patches = vision.n_patches
    vision_layer = 4 * vision.enc_dim**2 + 2 * vision.enc_dim * vision.enc_ff_dim
    per_crop = (
        2 * patches * (vision.enc_n_layers * vision_layer + 3 * vision.enc_patch_size**2 * vision.enc_dim)
    )
    per_crop += 4 * patches**2 * vision.enc_dim * vision.enc_n_layers
    project = 2 * patches * vision.proj_inner_dim * (2 * vision.enc_dim + vision.proj_out_dim)
    per_token = 2 * text.n_layers * (4 * text.dim**2 + 2 * text.dim * text.ff_dim)
    per_token += 4 * config.prefix_length * text.dim * text.n_layers
    return {
        VISION: crops * per_crop + project,
        PREFIX: config.prefix_length * per_token * (text.n_layers - 1) / text.n_layers,
        PREFILL: PROMPTS_AT_ONCE * prompt_tokens * per_token,
        DECODE: PROMPTS_AT_ONCE * steps * per_token,
    }


def measure(package: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds, operations and the bytes of weights read, of each stage."""
    with without_image_cache():
        detector = load_runtime(package, DEVICE)
    image, prompts = drawn_image(480, 640), PROMPTS[:PROMPTS_AT_ONCE]
    timer = StageTimer()

    def run() -> None:
        (encoded,) = detector.encode_images([image])
        detector.detect([Query(encoded, prompt) for prompt in prompts], OBJECTS_PER_PROMPT)

    run()
    with timer.watch(detector):
        for _ in range(rounds):
            run()
    config = detector.model.config
    tokens = max(len(detector.tokenizer.encode(" " + prompt).ids) for prompt in prompts) + 5
    steps = timer.calls[DECODE] // rounds
    weights = sum(parameter.nbytes for parameter in detector.model.text.blocks.parameters())
    read = {PREFIX: weights, PREFILL: weights, DECODE: weights * steps}
    done = operations(config, timer.crops // rounds, steps, tokens)
    return {
        stage: {
            "seconds": timer.seconds[stage] / rounds,
            "operations": done.get(stage, 0),
            "bytes": read.get(stage, 0),
        }
        for stage in STAGES
    }


def main(
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints a table for each model, and writes and draws time_spent.json."""
    with random_package(LARGE, torch.bfloat16) as package:
        models = {"bundled model": measure(demo_model_folder(), 20), LARGE_NAME: measure(package, 2)}
    fast = DEVICE == "cuda" or has_bfloat16_instructions()
    dtype = torch.bfloat16 if fast else torch.float32
    peak, bandwidth = matrix_product_rate(DEVICE, dtype), memory_bandwidth(DEVICE)
    for title, stages in models.items():
        table = Table(
            "stage",
            "ms",
            "GFLOP/s",
            f"of {peak / 1e9:.0f} GFLOP/s",
            f"weights, of {bandwidth / 1e9:.0f} GB/s",
            title=f"{title}: one 640 x 480 image, {PROMPTS_AT_ONCE} prompts",
        )
        for stage, measured in stages.items():
            seconds = measured["seconds"]
            rate, read = measured["operations"] / seconds, measured["bytes"] / seconds
            table.add_row(
                stage,
                f"{seconds * 1e3:.1f}",
                f"{rate / 1e9:.0f}" if rate else "",
                f"{rate / peak:.0%}" if rate else "",
                f"{read / bandwidth:.0%}" if read else "",
            )
        show(table)

    milliseconds = {
        title: {stage: measured["seconds"] * 1e3 for stage, measured in stages.items()}
        for title, stages in models.items()
    }
    results = {
        "machine": machine(large=True),
        "image": "640 x 480",
        "n_prompts": PROMPTS_AT_ONCE,
        "models": milliseconds,
    }
    publish("time_spent", results, folder)


if __name__ == "__main__":
    typer.run(main)
