"""Measures detection of coloured shapes, on scenes from seeds that training never draws."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import supervision as sv
from supervision.metrics import MeanAveragePrecision

from training.prompts import Question, plain_prompt, random_wording
from training.scenes import COLOURS, SHAPES, Scene, draw_scene
from workflow_blocks.moondream2.objects import DetectedObject
from workflow_blocks.moondream2.runtime import Query, Runtime

GROUPS = {
    "colour and shape": [Question(colour, shape) for colour in COLOURS for shape in SHAPES],
    "shape": [Question(shape=shape) for shape in SHAPES],
    "colour": [Question(colour=colour) for colour in COLOURS],
    "any shape": [Question()],
}


@dataclass
class Score:
    """How a set of prompts did; each prompt counts as a class."""

    precision: MeanAveragePrecision = field(default_factory=MeanAveragePrecision)
    absent: int = 0
    absent_with_box: int = 0

    def add(self, predicted: sv.Detections, truth: sv.Detections, n_prompts: int) -> None:
        self.precision.update(predicted, truth)
        absent = set(range(n_prompts)) - set(truth.class_id.tolist())
        self.absent += len(absent)
        self.absent_with_box += len(absent & set(predicted.class_id.tolist()))

    @property
    def false_alarms(self) -> float:
        """Share of images without the prompt's object that get a box all the same."""
        return self.absent_with_box / max(self.absent, 1)


def evaluate(detector: Runtime, seeds: Iterable[int], natural: bool = False) -> dict[str, Score]:
    """Scores each group of prompts, and all together, on the scenes of `seeds`.

    With `natural`, prompts are worded at random ("the red circles") rather than plainly ("red circle").
    """
    scores = {name: Score() for name in (*GROUPS, "all")}
    for seed in seeds:
        rng = np.random.default_rng((seed, 1))
        scene = draw_scene(seed)
        (encoded,) = detector.encode_images([scene.image])
        wordings = {
            name: [random_wording(rng, q) if natural else plain_prompt(q) for q in questions]
            for name, questions in GROUPS.items()
        }
        found = iter(detector.detect([Query(encoded, p) for prompts in wordings.values() for p in prompts]))
        everything: list[tuple[Question, list[DetectedObject]]] = []
        for name, questions in GROUPS.items():
            answers = [(question, next(found)) for question in questions]
            scores[name].add(*compare(scene, answers), len(answers))
            everything += answers
        scores["all"].add(*compare(scene, everything), len(everything))
    return scores


def false_alarms_of_other_things(detector: Runtime, seeds: Iterable[int]) -> float:
    """Share of prompts for things that are never drawn ("dog", "purple star") that get a box."""
    with_box, asked = 0, 0
    for seed in seeds:
        rng = np.random.default_rng((seed, 2))
        prompts = [random_wording(rng, Question(impossible=True)) for _ in range(5)]
        (encoded,) = detector.encode_images([draw_scene(seed).image])
        found = detector.detect([Query(encoded, prompt) for prompt in prompts])
        with_box += sum(bool(objects) for objects in found)
        asked += len(prompts)
    return with_box / asked


def compare(
    scene: Scene, answers: list[tuple[Question, list[DetectedObject]]]
) -> tuple[sv.Detections, sv.Detections]:
    """Predictions and truth in pixels; a prompt's place in the list is its class."""
    height, width = scene.image.shape[:2]
    found = [(i, item) for i, (_, items) in enumerate(answers) for item in items]
    true = [(i, o) for i, (question, _) in enumerate(answers) for o in scene.objects if question.matches(o)]
    boxes = np.array([(o.x_min, o.y_min, o.x_max, o.y_max) for _, o in found]).reshape(-1, 4).clip(0, 1)
    predicted = sv.Detections(
        xyxy=boxes * (width, height, width, height),
        class_id=np.array([i for i, _ in found], dtype=int),
        confidence=np.array([item.confidence for _, item in found], dtype=float),
    )
    truth = sv.Detections(
        xyxy=np.array([o.xyxy for _, o in true], dtype=float).reshape(-1, 4),
        class_id=np.array([i for i, _ in true], dtype=int),
    )
    return predicted, truth
