"""Which score tells good boxes from bad ones: candidates compared on scenes that the model finds hard."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import supervision as sv
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from supervision.metrics import MeanAveragePrecision
from torch import Tensor

from benchmarks.draw import FOLDERS, publish
from training.bins import ObjectWithBins, RuntimeWithBins
from training.evaluate_shapes import GROUPS, compare
from training.prompts import plain_prompt
from training.scenes import DEFAULT_OPTIONS, SceneOptions, draw_scene
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.moondream2.objects import DetectedObject, ObjectDecoder
from workflow_blocks.moondream2.region import Choice
from workflow_blocks.moondream2.runtime import Query, Runtime

FloatArray = npt.NDArray[np.float64]

# Neither training nor the choice of the score saw scenes of these seeds.
FIRST_SEED = 3_000_000
HARD = SceneOptions(min_object_size=0.06, max_objects=12, min_visible=0.4, max_noise=45, look_alikes=0.35)

QUESTIONS = [question for group in GROUPS.values() for question in group]
N_BINS = 10


class Answered(NamedTuple):
    """The objects found in one scene, prompt by prompt, and the truth in pixels."""

    objects: list[DetectedObject]
    predicted: sv.Detections
    truth: sv.Detections


def _bins(item: ObjectWithBins) -> FloatArray:
    return np.array([item.p_x, item.p_y, item.p_w, item.p_h])


def _geometric_mean(values: FloatArray) -> float:
    return float(np.exp(np.log(values.clip(1e-9)).mean()))


CANDIDATES: dict[str, Callable[[Any], float]] = {
    "constant (core block)": lambda item: 1.0,
    "p_object": lambda item: item.p_object,
    "product of all": lambda item: item.p_object * float(_bins(item).prod()),
    "mean of all": lambda item: float(np.append(_bins(item), item.p_object).mean()),
    "p_object x geometric mean of bins": lambda item: item.p_object * _geometric_mean(_bins(item)),
    "p_box": lambda item: item.p_box,
    "p_object x p_box (chosen)": lambda item: item.confidence,
}


class OverlapDecoder(ObjectDecoder):
    """Gives, in place of `p_box`, the expected overlap of a box drawn from the bins."""

    def _box_values(self, p_object: Tensor, x: Choice, y: Choice, w: Choice, h: Choice) -> Tensor:
        *others, _ = super()._box_values(p_object, x, y, w, h).unbind(dim=-1)
        return torch.stack((*others, _expected_overlap(x, w) * _expected_overlap(y, h)), dim=-1)


class RuntimeByOverlap(Runtime):
    """A runtime that scores boxes by their expected overlap."""

    object_decoder_type = OverlapDecoder


def _expected_overlap(centre: Choice, size: Choice) -> Tensor:
    """Expected intersection over union with the chosen interval, centre and size drawn in turn."""
    chosen = size.value.unsqueeze(-1)
    shift = (centre.bin_values - centre.value.unsqueeze(-1)).abs()
    when_shifted = ((chosen - shift) / (chosen + shift)).clamp(min=0)
    when_sized = size.bin_values.minimum(chosen) / size.bin_values.maximum(chosen)
    return (centre.probabilities * when_shifted).sum(-1) * (size.probabilities * when_sized).sum(-1)


def answer(detector: Runtime, options: SceneOptions, n_scenes: int, label: str) -> list[Answered]:
    """Asks every prompt about every scene."""
    answered = []
    for seed in track(range(FIRST_SEED, FIRST_SEED + n_scenes), label):
        scene = draw_scene(seed, options)
        (image,) = detector.encode_images([scene.image])
        found = detector.detect([Query(image, plain_prompt(question)) for question in QUESTIONS])
        predicted, truth = compare(scene, list(zip(QUESTIONS, found, strict=True)))
        answered.append(Answered([item for items in found for item in items], predicted, truth))
    return answered


def average_precision(
    answered: list[Answered], score: Callable[[DetectedObject], float]
) -> tuple[float, float]:
    """mAP@50 and mAP@50:95 when boxes are ranked by `score`."""
    metric = MeanAveragePrecision()
    for scene in answered:
        scene.predicted.confidence = np.array([score(item) for item in scene.objects])
        metric.update(scene.predicted, scene.truth)
    result = metric.compute()
    return float(result.map50), float(result.map50_95)


def correct(scene: Answered) -> npt.NDArray[np.bool_]:
    """Which boxes are the first, by `p_object`, to overlap a true one of their prompt by half."""
    hits = np.zeros(len(scene.predicted), dtype=bool)
    if not len(scene.predicted) or not len(scene.truth):
        return hits
    overlap = sv.box_iou_batch(scene.truth.xyxy, scene.predicted.xyxy)
    overlap[scene.truth.class_id[:, None] != scene.predicted.class_id] = 0
    for index in np.argsort([-item.p_object for item in scene.objects], kind="stable"):
        best = overlap[:, index].argmax()
        if overlap[best, index] >= 0.5:
            hits[index] = True
            overlap[best] = 0
    return hits


def reliability(scores: FloatArray, hits: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray, float]:
    """Mean score and share of correct boxes in each bin of scores, and the expected calibration error.

    Guo et al., 2017, https://arxiv.org/abs/1706.04599.
    """
    bins = np.minimum((scores * N_BINS).astype(int), N_BINS - 1)
    used = [bins == index for index in range(N_BINS) if (bins == index).any()]
    means = np.array([scores[chosen].mean() for chosen in used])
    shares = np.array([hits[chosen].mean() for chosen in used])
    weights = np.array([chosen.mean() for chosen in used])
    return means, shares, float((np.abs(means - shares) * weights).sum())


def main(
    scenes: Annotated[int, typer.Option(help="How many scenes of each kind.")] = 300,
    folder: Annotated[Path, typer.Option(help="Where the results and the picture go.")] = FOLDERS["scores"],
) -> None:
    """Prints the comparison, and writes and draws scores.json: the reliability of the chosen score."""
    detector = RuntimeWithBins.from_folder(demo_model_folder())
    by_overlap = RuntimeByOverlap(detector.model, detector.tokenizer)
    refining = Runtime(detector.model, detector.tokenizer, refine_boxes=True)
    found: dict[str, Any] = {}
    for kind, options in {"hard": HARD, "ordinary": DEFAULT_OPTIONS}.items():
        answered = answer(detector, options, scenes, f"{kind} scenes")
        table = Table("score", "mAP@50", "mAP@50:95", "calibration error", title=f"{scenes} {kind} scenes")
        rows = [(name, answered, score) for name, score in CANDIDATES.items()]
        overlapping = answer(by_overlap, options, scenes, "by overlap")
        rows.append(("p_object x expected overlap", overlapping, lambda item: item.confidence))
        refined = answer(refining, options, scenes, "refined boxes")
        rows.append(("chosen, boxes refined", refined, lambda item: item.confidence))
        bins = {}
        for name, source, score in rows:
            scores = np.array([score(item) for scene in source for item in scene.objects])
            hits = np.concatenate([correct(scene) for scene in source])
            means, shares, error = reliability(scores, hits)
            table.add_row(name, *(f"{value:.3f}" for value in (*average_precision(source, score), error)))
            if name in ("p_object", "p_object x p_box (chosen)"):
                bins[name] = {"score": means.round(4).tolist(), "right": shares.round(4).tolist()}
        Console().print(table)
        hits = np.concatenate([correct(scene) for scene in answered])
        found[kind] = {"boxes": len(hits), "right": float(hits.mean()), "scores": bins}
    publish("scores", {"n_scenes": scenes, "scenes": found}, folder)


if __name__ == "__main__":
    typer.run(main)
