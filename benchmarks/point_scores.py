"""How near a place must be to count for a point's score: candidates compared on scenes with known objects.

The bundled model was not trained to point. The centres of its boxes stand in for points: the same coordinate
head decodes them.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from benchmarks.scores import FIRST_SEED, HARD, QUESTIONS, FloatArray, reliability
from training.prompts import Question, plain_prompt
from training.scenes import DEFAULT_OPTIONS, Scene, SceneOptions, draw_scene
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.moondream2.objects import DetectedObject, ObjectDecoder
from workflow_blocks.moondream2.region import Choice
from workflow_blocks.moondream2.runtime import Query, Runtime

# Relative to the image.
REACHES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06)


@dataclass(frozen=True, init=False)
class ScoredCentre(DetectedObject):
    """A detected object with the probability of places near its centre, for each reach."""

    p_places: tuple[float, ...]

    def __init__(self, *values: float) -> None:
        super().__init__(*values[: -len(REACHES)])
        object.__setattr__(self, "p_places", values[-len(REACHES) :])


class CentreDecoder(ObjectDecoder):
    """Decodes boxes whose centres are scored as points."""

    object_type = ScoredCentre

    def _box_values(self, p_object: Tensor, x: Choice, y: Choice, w: Choice, h: Choice) -> Tensor:
        p_places = [_probability_near(x, reach) * _probability_near(y, reach) for reach in REACHES]
        return torch.cat((super()._box_values(p_object, x, y, w, h), torch.stack(p_places, dim=-1)), dim=-1)


class CentreRuntime(Runtime):
    """A runtime whose detected objects are `ScoredCentre`."""

    object_decoder_type = CentreDecoder


def _probability_near(coordinate: Choice, reach: float) -> Tensor:
    near = (coordinate.bin_values - coordinate.value.unsqueeze(-1)).abs() <= reach
    return (coordinate.probabilities * near).sum(dim=-1)


def score_centres(
    runtime: Runtime, options: SceneOptions, n_scenes: int, label: str
) -> tuple[FloatArray, FloatArray]:
    """Scores (N, 1 + reaches) of all centres, the first without places, and whether each is right (N,)."""
    scores: list[list[float]] = []
    hits: list[bool] = []
    for seed in track(range(FIRST_SEED, FIRST_SEED + n_scenes), label):
        scene = draw_scene(seed, options)
        (image,) = runtime.encode_images([scene.image])
        found = runtime.detect([Query(image, plain_prompt(question)) for question in QUESTIONS])
        for question, objects in zip(QUESTIONS, found, strict=True):
            surest_first = sorted(objects, key=lambda item: -item.p_object)
            hits += _hits(scene, question, surest_first)
            scores += [
                [item.p_object, *(item.p_object * p for p in item.p_places)]
                for item in surest_first
                if isinstance(item, ScoredCentre)
            ]
    return np.array(scores), np.array(hits, dtype=float)


def _hits(scene: Scene, question: Question, found: list[DetectedObject]) -> list[bool]:
    """Whether each centre lies in the box of an object that the question names and no earlier centre took."""
    height, width = scene.image.shape[:2]
    free = [item.xyxy for item in scene.objects if question.matches(item)]
    hits = []
    for item in found:
        x, y = (item.x_min + item.x_max) / 2 * width, (item.y_min + item.y_max) / 2 * height
        inside = [box for box in free if box[0] <= x <= box[2] and box[1] <= y <= box[3]]
        if inside:
            free.remove(inside[0])
        hits.append(bool(inside))
    return hits


def average_precision(scores: FloatArray, hits: FloatArray) -> float:
    """Mean precision at the right points, the surest first."""
    ranked = hits[np.argsort(-scores, kind="stable")]
    precision = ranked.cumsum() / np.arange(1, len(ranked) + 1)
    return float((precision * ranked).sum() / ranked.sum())


def main(scenes: Annotated[int, typer.Option(help="How many scenes of each kind.")] = 100) -> None:
    """Prints the comparison."""
    runtime = CentreRuntime.from_folder(demo_model_folder())
    for kind, options in {"hard": HARD, "ordinary": DEFAULT_OPTIONS}.items():
        scores, hits = score_centres(runtime, options, scenes, f"{kind} scenes")
        table = Table("score", "average precision", "calibration error", title=f"{scenes} {kind} scenes")
        names = ["p_object", *(f"p_object x places within {reach}" for reach in REACHES)]
        for name, column in zip(names, scores.T, strict=True):
            error = reliability(column, hits.astype(bool))[2]
            table.add_row(name, f"{average_precision(column, hits):.3f}", f"{error:.3f}")
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)
