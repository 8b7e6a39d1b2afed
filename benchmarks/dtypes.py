"""What dtypes and numbers of crops cost: seconds at the released widths, and the bundled model's boxes."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import supervision as sv
import torch
import typer
from rich.progress import track
from rich.table import Table

from benchmarks.draw import FOLDER, publish
from benchmarks.measure import console, cpu_dtypes, drawn_image, matrix_product_rate, side_by_side
from benchmarks.packages import DEVICE, random_package
from training.evaluate import FIRST_SEED
from training.evaluate_shapes import GROUPS, Score, compare
from training.prompts import plain_prompt
from training.scenes import Scene, draw_scene
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.moondream2.config import Moondream2Config, TextConfig, VisionConfig
from workflow_blocks.moondream2.objects import DetectedObject
from workflow_blocks.moondream2.runtime import Query, Runtime

# The released widths; all layers would take minutes.
FEW_LAYERS = Moondream2Config(vision=VisionConfig(enc_n_layers=4), text=TextConfig(n_layers=3))
HEIGHT, WIDTH = 720, 1280
CROPS = (12, 4, 1)
OBJECTS = 5
# Of the bundled model, which has 6.
DEMO_CROPS = (6, 4, 2, 1)
QUESTIONS = [question for questions in GROUPS.values() for question in questions]
# Shares of the area of a scene.
SIZES = {"small": (0.0, 0.02), "medium": (0.02, 0.06), "large": (0.06, 1.0)}

Found = list[list[list[DetectedObject]]]


def dtypes() -> list[str]:
    return ["float32", "bfloat16", "float16"] if DEVICE == "cuda" else cpu_dtypes()


def measure_seconds(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds by work and dtype, side by side; the image cache is off."""
    image = drawn_image(HEIGHT, WIDTH)
    with random_package(FEW_LAYERS, torch.bfloat16) as package:
        runtimes = {
            name: Runtime.from_folder(package, torch.device(DEVICE), getattr(torch, name))
            for name in dtypes()
        }
    works: dict[str, dict[str, Callable[[], object]]] = {}
    for crops in CROPS:
        works[f"encode, {_counted(crops, 'crop')} at most"] = {
            name: partial(_encode, runtime, image, crops) for name, runtime in runtimes.items()
        }
    for count in (1, 8):
        works[f"{_counted(count, 'prompt')}, {OBJECTS} objects each"] = {
            name: partial(_detect, runtime, runtime.encode_images([image])[0], count)
            for name, runtime in runtimes.items()
        }
    measured = {}
    for work, runs in works.items():
        side_by_side(runs, 1)  # does not count
        measured[work] = side_by_side(runs, rounds)
    return measured


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _encode(runtime: Runtime, image: Any, max_crops: int) -> None:
    runtime.crops_limit = max_crops
    runtime.encode_images([image])


def _detect(runtime: Runtime, image: Any, count: int) -> None:
    runtime.detect([Query(image, f"thing {number}") for number in range(count)], OBJECTS)


def found_by(dtype: str, max_crops: int, scenes: int) -> Found:
    """What the bundled model finds, for each scene and prompt."""
    runtime = Runtime.from_folder(
        demo_model_folder(), torch.device(DEVICE), getattr(torch, dtype), max_crops=max_crops
    )
    prompts = [plain_prompt(question) for question in QUESTIONS]
    found = []
    for scene in track(list(_scenes(scenes)), f"{dtype}, {max_crops} crops", console=console, transient=True):
        (image,) = runtime.encode_images([scene.image])
        found.append(runtime.detect([Query(image, prompt) for prompt in prompts]))
    return found


def _scenes(count: int) -> Iterator[Scene]:
    return map(draw_scene, range(FIRST_SEED, FIRST_SEED + count))


def precision(found: Found) -> dict[str, float]:
    """Mean average precision over the scenes, also by the size of the true objects."""
    everything = Score()
    of_size = {name: Score() for name in SIZES}
    for scene, answers in zip(_scenes(len(found)), found, strict=True):
        predicted, truth = compare(scene, list(zip(QUESTIONS, answers, strict=True)))
        everything.add(predicted, truth, len(QUESTIONS))
        area = scene.image.shape[0] * scene.image.shape[1]
        for name, (least, most) in SIZES.items():
            chosen = [_within(boxes.area / area, least, most) for boxes in (predicted, truth)]
            of_size[name].add(predicted[chosen[0]], truth[chosen[1]], len(QUESTIONS))
    result = everything.precision.compute()
    by_size = {f"mAP@50, {name}": float(score.precision.compute().map50) for name, score in of_size.items()}
    return {"mAP@50": float(result.map50), "mAP@50:95": float(result.map50_95), **by_size}


def _within(shares: Any, least: float, most: float) -> Any:
    return (shares >= least) & (shares < most)


def agreement(reference: Found, found: Found) -> float:
    """The share of the reference's boxes that the other has too, at IoU 0.9."""
    agreeing = total = 0
    for of_scene, others_of_scene in zip(reference, found, strict=True):
        for objects, others in zip(of_scene, others_of_scene, strict=True):
            boxes, other_boxes = _corners(objects), _corners(others)
            total += len(boxes)
            if len(boxes) and len(other_boxes):
                agreeing += int((sv.box_iou_batch(boxes, other_boxes).max(axis=1) >= 0.9).sum())
    return agreeing / total


def _corners(objects: list[DetectedObject]) -> Any:
    return np.array([(o.x_min, o.y_min, o.x_max, o.y_max) for o in objects]).reshape(-1, 4)


def measure_boxes(scenes: int) -> dict[str, dict[str, float]]:
    """How good the boxes are, by dtype and by number of crops."""
    reference = found_by("float32", DEMO_CROPS[0], scenes)
    rows = {f"float32, {_counted(DEMO_CROPS[0], 'crop')}": precision(reference) | {"agree": 1.0}}
    others = [(name, DEMO_CROPS[0]) for name in dtypes()[1:]] + [
        ("float32", crops) for crops in DEMO_CROPS[1:]
    ]
    for name, crops in others:
        found = found_by(name, crops, scenes)
        rows[f"{name}, {_counted(crops, 'crop')}"] = precision(found) | {"agree": agreement(reference, found)}
    return rows


def main(
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 3,
    scenes: Annotated[int, typer.Option(help="How many scenes the bundled model searches.")] = 100,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDER,
) -> None:
    """Prints two tables, and writes and draws dtypes.json."""
    seconds = measure_seconds(rounds)
    table = Table("", *dtypes(), title=f"{WIDTH} x {HEIGHT}, released widths, 4 vision and 3 text layers")
    base = next(iter(seconds.values()))["float32"]
    for work, measured in seconds.items():
        first = base if work.startswith("encode") else measured["float32"]
        table.add_row(work, *(f"{value:.2f} s, {first / value:.1f} x" for value in measured.values()))
    console.print(table)
    boxes = measure_boxes(scenes)
    table = Table("", *next(iter(boxes.values())), title=f"Bundled model, {scenes} scenes")
    for name, figures in boxes.items():
        table.add_row(name, *(f"{value:.3f}" for value in figures.values()))
    console.print(table)
    rates = {
        name: matrix_product_rate(DEVICE, getattr(torch, name)) / 1e9 for name in dtypes() if name != "int8"
    }
    publish(
        "dtypes",
        {
            "machine": f"{torch.get_num_threads()} CPU cores"
            if DEVICE == "cpu"
            else torch.cuda.get_device_name(),
            "image": f"{WIDTH} x {HEIGHT}",
            "seconds": seconds,
            "billion operations a second of large products": rates,
            "boxes": boxes,
        },
        folder,
    )


if __name__ == "__main__":
    typer.run(main)
