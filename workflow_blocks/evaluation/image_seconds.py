"""How many seconds an image takes on this machine: a little is measured, and the rest calculated from it.

The time to encode an image grows with its crops, and that of a crop with the layers. The time to decode grows
with the tokens. So a crop and a token are measured; of the released sizes, on a few of their layers.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from inference_models.configuration import DEFAULT_DEVICE
from safetensors.torch import save_file
from tokenizers import Tokenizer

from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.inference_host.loading import load_runtime
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_tokenizer
from workflow_blocks.moondream2.config import STEPS_PER_OBJECT, Moondream2Config, TextConfig, VisionConfig
from workflow_blocks.moondream2.decoding import Decoding, Request
from workflow_blocks.moondream2.image_crops import Tiling, UInt8Array, tiling_of
from workflow_blocks.moondream2.prompt_tokens import PromptTokens
from workflow_blocks.moondream2.random_weights import random_weights
from workflow_blocks.moondream2.region import choose_coordinates
from workflow_blocks.moondream2.runtime import Runtime

RELEASED = Moondream2Config()
# Of the released sizes, so many layers of the vision encoder and of the text decoder are measured.
_FEW, _MORE = 1, 3
IMAGE_SIZES = ((640, 480), (1280, 720), (1920, 1080))
PROMPT_COUNTS = (1, 8)
OBJECTS_PER_PROMPT = 3
_PROMPT_TOKENS = 5
_STEPS = 6
_LEAST_ROUNDS, _MOST_ROUNDS, _SECONDS = 2, 12, 40.0


class Layers(NamedTuple):
    """How many layers the vision encoder and the text decoder have."""

    vision: int
    text: int


@dataclass(frozen=True)
class ImageSeconds:
    """What one image costs.

    Attributes:
        dtype: what the model runs in.
        device: where.
        max_crops: the most local crops of an image.
        crop: seconds to encode a crop.
        image: seconds that each image takes in addition.
        prompt: by number of prompts, seconds to read them.
        step: by number of prompts, seconds for a token of each.
        spread: by what share the usual round was slower than the quickest, from which the seconds are.
        measured_layers: which layers were measured; None if all.
    """

    dtype: str
    device: str
    max_crops: int
    crop: float
    image: float
    prompt: dict[int, float]
    step: dict[int, float]
    spread: float
    measured_layers: Layers | None

    def encode(self, n_crops: int) -> float:
        return self.image + n_crops * self.crop

    def detect(self, n_prompts: int) -> float:
        """Seconds for prompts that find `OBJECTS_PER_PROMPT` objects each, all together."""
        return self.prompt[n_prompts] + self.step[n_prompts] * STEPS_PER_OBJECT * OBJECTS_PER_PROMPT


def crops_of(width: int, height: int, config: Moondream2Config, max_crops: int) -> int:
    """How many different crops of an image are encoded, the whole image included."""
    tiling = tiling_of(height, width, config.vision, max_crops)
    return 1 if tiling == Tiling(1, 1) else 1 + tiling.rows * tiling.cols


def measure_package(folder: Path) -> ImageSeconds:
    """Measures a model package with all its layers, by the settings in force.

    Raises:
        CheckpointError, ConfigError, RevisionError, SettingsError: it cannot be loaded.
    """
    runtime = load_runtime(folder, DEFAULT_DEVICE)
    (timings,) = _timings_of([runtime])
    return _of(runtime, _Parts.of(timings, _crops_of_works(runtime)), [timings], None)


def measure_released_size() -> ImageSeconds:
    """Measures a few layers of the released sizes with random weights, and calculates all of them.

    Raises:
        SettingsError: a setting is invalid, or does not work on this machine.
    """
    runtimes: dict[Layers, Runtime] = {}
    for layers in (Layers(_FEW, _FEW), Layers(_MORE, _FEW), Layers(_FEW, _MORE)):
        with _package_of(layers) as folder:
            runtimes[layers] = load_runtime(folder, DEFAULT_DEVICE, _any_tokenizer)
    timings = _timings_of(list(runtimes.values()))
    runtime = next(iter(runtimes.values()))
    crops = _crops_of_works(runtime)
    parts = {layers: _Parts.of(own, crops) for layers, own in zip(runtimes, timings, strict=True)}
    all_layers = Layers(RELEASED.vision.enc_n_layers, RELEASED.text.n_layers)
    return _of(runtime, _calculated(parts, all_layers), timings, Layers(_MORE, _MORE))


def _any_tokenizer(*_: object) -> Tokenizer:
    """Nothing is read as text here."""
    folder = demo_model_folder()
    return load_tokenizer(folder, Moondream2Config.from_file(folder / CONFIG_FILE))


# Seconds of each round, by what was done: "one crop", "many crops", "prompt 8", "step 8".
_Timings = dict[str, list[float]]


def _timings_of(runtimes: list[Runtime]) -> list[_Timings]:
    """Measures models in turns, so that what else the machine does slows all of them alike.

    There are as many rounds as fit the time, and at least two that count: the first does not.
    """
    works = [_works(runtime) for runtime in runtimes]
    timings: list[_Timings] = [{name: [] for name in of_runtime} for of_runtime in works]
    start, n_rounds = time.perf_counter(), 0
    while n_rounds <= _LEAST_ROUNDS or (
        n_rounds <= _MOST_ROUNDS and time.perf_counter() - start < _SECONDS * n_rounds / (n_rounds + 1)
    ):
        for of_runtime, own in zip(works, timings, strict=True):
            for name, work in of_runtime.items():
                own[name].append(work())
        n_rounds += 1
    return [{name: seconds[1:] for name, seconds in own.items()} for own in timings]


def _works(runtime: Runtime) -> dict[str, Callable[[], float]]:
    """What is measured of a model; each call gives its seconds."""
    small, large = _images(runtime)
    with torch.inference_mode():
        (image,) = runtime.encode_images([small])
    works: dict[str, Callable[[], float]] = {
        "one crop": partial(_seconds_of, lambda: runtime.encode_images([_new(small)])),
        "many crops": partial(_seconds_of, lambda: runtime.encode_images([_new(large)])),
    }
    for count in PROMPT_COUNTS:
        requests = [Request(image, PromptTokens((0,) * _PROMPT_TOKENS))] * count
        works[f"prompt {count}"] = partial(_seconds_of, partial(Decoding, runtime.model, requests))
        works[f"step {count}"] = partial(_seconds_of_step, runtime, requests)
    return works


def _images(runtime: Runtime) -> tuple[UInt8Array, UInt8Array]:
    size = runtime.model.config.vision.crop_size
    return _square(size), _square(2 * size)


def _crops_of_works(runtime: Runtime) -> tuple[int, int]:
    """How many crops "one crop" and "many crops" encode."""
    small, large = (
        crops_of(image.shape[1], image.shape[0], runtime.model.config, runtime.max_crops)
        for image in _images(runtime)
    )
    return small, large


class _Parts(NamedTuple):
    """Seconds of each part: see `ImageSeconds`."""

    crop: float
    image: float
    prompt: dict[int, float]
    step: dict[int, float]

    @classmethod
    def of(cls, timings: _Timings, crops: tuple[int, int]) -> "_Parts":
        """The quickest of all rounds: other programs only make them slower."""
        least = {name: min(seconds) for name, seconds in timings.items()}
        fewer, more = crops
        if more == fewer:  # with one crop at most, it is the whole image's cost
            crop = least["one crop"] / fewer
        else:
            crop = max(0.0, least["many crops"] - least["one crop"]) / (more - fewer)
        return cls(
            crop=crop,
            image=max(0.0, least["one crop"] - fewer * crop),
            prompt={count: least[f"prompt {count}"] for count in PROMPT_COUNTS},
            step={count: least[f"step {count}"] for count in PROMPT_COUNTS},
        )


@torch.inference_mode()
def _seconds_of_step(runtime: Runtime, requests: list[Request]) -> float:
    """A token of each row: the decoder reads it, and the heads choose a coordinate."""
    decoding, region = Decoding(runtime.model, requests), runtime.model.region

    def step() -> None:
        x = choose_coordinates(region.coordinate_logits(decoding.hidden))
        decoding.read(region.encode_coordinate(x.value))

    return min(_seconds_of(step) for _ in range(_STEPS))


@torch.inference_mode()
def _seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _calculated(parts: dict[Layers, _Parts], layers: Layers) -> _Parts:
    """The parts with so many layers: each layer adds as much as the one before."""

    def calculate(base: float, with_vision: float, with_text: float) -> float:
        of_vision, of_text = (max(0.0, more - base) / (_MORE - _FEW) for more in (with_vision, with_text))
        return base + of_vision * (layers.vision - _FEW) + of_text * (layers.text - _FEW)

    crops, images, prompts, steps = zip(*parts.values(), strict=True)
    return _Parts(
        crop=calculate(*crops),
        image=calculate(*images),
        prompt={count: calculate(*(of[count] for of in prompts)) for count in PROMPT_COUNTS},
        step={count: calculate(*(of[count] for of in steps)) for count in PROMPT_COUNTS},
    )


def _of(
    runtime: Runtime, parts: _Parts, timings: list[_Timings], measured_layers: Layers | None
) -> ImageSeconds:
    device, dtype = runtime.placement
    name = str(dtype).removeprefix("torch.")
    spread = max(median(own["many crops"]) / min(own["many crops"]) for own in timings) - 1
    return ImageSeconds(name, str(device), runtime.max_crops, *parts, spread, measured_layers)


@contextmanager
def _package_of(layers: Layers) -> Iterator[Path]:
    """The released sizes with few layers and random weights; removed afterwards."""
    config = Moondream2Config(
        vision=VisionConfig(enc_n_layers=layers.vision), text=TextConfig(n_layers=layers.text)
    )
    with tempfile.TemporaryDirectory() as name:
        save_file(random_weights(config, torch.bfloat16), Path(name) / WEIGHTS_FILE)
        (Path(name) / CONFIG_FILE).write_text(json.dumps({"config": config.model_dump(mode="json")}))
        yield Path(name)


def _square(side: int) -> UInt8Array:
    return np.zeros((side, side, 3), np.uint8)


def _new(image: UInt8Array) -> UInt8Array:
    """An image that no cache has."""
    image[:4, :4] = np.random.default_rng().integers(256, size=(4, 4, 3))
    return image
