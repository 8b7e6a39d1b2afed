"""Measures one model class on one package, in a process that does nothing else.

The process imports torch and Inference when it measures, not when this module is imported.
"""

import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from workflow_blocks.evaluation.box_agreement import Box

PROMPT_COUNTS = (1, 4, 8)
# Speed is measured on the first images only: one image at the released size takes a CPU minutes.
SPEED_IMAGES = 4
# Other programs on the machine slow single runs down.
MAX_RUNS, ENOUGH_SECONDS = 3, 2.0
_LOG_HEADING = "Log of workflow-blocks compare\n"


@dataclass(frozen=True)
class Job:
    """What to measure.

    `model_class` is Inference's own class or that of this plugin. `dtype` is for this plugin's class, None
    for its default; Inference's class chooses its own. `log` receives what the process prints.
    """

    model_class: Literal["inference", "plugin"]
    package: Path
    images: Sequence[Path]
    prompts: Sequence[str]
    dtype: str | None
    log: Path


@dataclass(frozen=True)
class Measured:
    """What a model class found and used.

    `found` has the boxes of each image. `seconds` has the mean seconds for an image, by number of prompts.
    Memory is the most that the process used, in bytes, with weights and libraries; None where it cannot be
    measured. `default_dtype` is the one in which this plugin would run here. `python_files` are the Python
    files of the package whose code ran.
    """

    found: list[list[Box]]
    seconds: dict[int, float]
    load_seconds: float
    memory: int | None
    gpu_memory: int | None
    device: str
    dtype: str
    default_dtype: str
    python_files: list[str]


@dataclass(frozen=True)
class Failure:
    """Why a model class could not run: the type of the error, empty if the process died, and its message."""

    error: str
    message: str


def run_job(job: Job, results: "Connection[Any, Any]") -> None:
    """Measures, and sends a `Measured` or a `Failure`."""
    with job.log.open("w", encoding="utf-8") as log:
        log.write(_LOG_HEADING)
        log.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            results.send(measure(job))
        except Exception as error:  # the package's Python can raise anything
            traceback.print_exc()
            lines = str(error).strip().splitlines()
            results.send(Failure(type(error).__name__, lines[0] if lines else "no message"))


def is_log(file: Path) -> bool:
    """Whether a file is a log of `run_job`, also of one that failed or was killed."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_LOG_HEADING)) == _LOG_HEADING.encode()
    except OSError:
        return False


def measure(job: Job) -> Measured:
    """Loads the model, finds boxes in all images, then measures the speed."""
    python_files = record_python_files(job.package)
    from inference_models.configuration import DEFAULT_DEVICE

    from workflow_blocks.moondream2.checkpoint import CONFIG_FILE
    from workflow_blocks.moondream2.config import ConfigError, Moondream2Config
    from workflow_blocks.moondream2.settings import load_settings

    settings = load_settings()
    device = settings.device_or(DEFAULT_DEVICE)
    try:
        config = Moondream2Config.from_file(job.package / CONFIG_FILE)
    except ConfigError:  # Inference's own class can run other packages too
        config = Moondream2Config()
    default_dtype = _name(settings.dtype_of(config, device))
    if job.dtype is not None:
        os.environ["MOONDREAM2_DTYPE"] = job.dtype
    os.environ["MOONDREAM2_IMAGE_CACHE_MB"] = "0"  # else only the first question about an image encodes it
    model_class = _model_class(job)
    start = time.perf_counter()
    model = model_class.from_pretrained(str(job.package), device=device)
    load_seconds = time.perf_counter() - start
    found = [_detect(model, _read(path), job.prompts) for path in job.images]
    return Measured(
        found=found,
        seconds={count: _seconds(model, job, count) for count in PROMPT_COUNTS},
        load_seconds=load_seconds,
        memory=_peak_memory(),
        gpu_memory=_peak_gpu_memory(device),
        device=str(device),
        dtype=_dtype(model) if job.model_class == "inference" else job.dtype or default_dtype,
        default_dtype=default_dtype,
        python_files=sorted(python_files),
    )


def record_python_files(folder: Path) -> set[str]:
    """A set that from now on receives the name of each Python file in a folder whose code this process runs.

    Files are known by where they lie, not by where links lead: Inference links a package's files.
    """
    root = os.path.realpath(folder)
    files: set[str] = set()

    def on_event(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "exec":
            return
        file = getattr(arguments[0], "co_filename", "")
        if os.path.isabs(file):  # noqa: PTH117 (runs at each import: no `Path` objects)
            directory = os.path.realpath(os.path.dirname(file))  # noqa: PTH120
            if directory == root or directory.startswith(root + os.sep):
                files.add(os.path.relpath(os.path.join(directory, os.path.basename(file)), root))  # noqa: PTH118, PTH119

    sys.addaudithook(on_event)
    return files


def _model_class(job: Job) -> Any:
    if job.model_class == "plugin":
        from workflow_blocks.inference_host.model import Moondream2Model

        return Moondream2Model
    from inference_models.models.moondream2.moondream2_hf import MoonDream2HF

    return MoonDream2HF


def _read(path: Path) -> Any:
    from workflow_blocks.image_files import read_image_file

    return read_image_file(path)


def _detect(model: Any, image: Any, prompts: Sequence[str]) -> list[Box]:
    """The boxes in an image, clipped to it."""
    (detections,) = model.detect([image], list(prompts), input_color_format="bgr")
    height, width = image.shape[:2]
    xyxy = detections.xyxy.float().cpu().reshape(-1, 4)
    xyxy[:, 0::2].clamp_(0, width)
    xyxy[:, 1::2].clamp_(0, height)
    return [
        Box(prompt, tuple(corners), confidence)
        for prompt, corners, confidence in zip(
            detections.class_id.tolist(), xyxy.tolist(), detections.confidence.tolist(), strict=True
        )
    ]


def _seconds(model: Any, job: Job, n_prompts: int) -> float:
    """The mean seconds for an image; prompts repeat where there are too few."""
    prompts = list(islice(cycle(job.prompts), n_prompts))
    images = [_read(path) for path in job.images[:SPEED_IMAGES]]
    return statistics.mean(_best_seconds(partial(_detect, model, image, prompts)) for image in images)


def _best_seconds(run: Callable[[], object]) -> float:
    """The seconds of the fastest of a few runs, of a single one if it is slow."""
    seconds: list[float] = []
    while len(seconds) < MAX_RUNS and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _peak_memory() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_gpu_memory(device: Any) -> int | None:
    import torch

    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else None


def _dtype(model: Any) -> str:
    """The dtype of the weights of Inference's class, or the dtypes."""
    import torch

    weights = getattr(model, "_model", None)
    if not isinstance(weights, torch.nn.Module):
        return "unknown dtype"
    return ", ".join(sorted({_name(weight.dtype) for weight in weights.parameters()}))


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
