"""Measures detection and pointing of everyday things, on pictures that training never draws.

A name is a class: every name is searched for in every picture.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import supervision as sv
from supervision.metrics import MeanAveragePrecision

from training.icons import Drawings
from training.names import THINGS
from training.overlap import iou
from training.pictures import SCENE_PICTURES, Item, Picture, PictureOptions, draw_picture
from training.words import Wanted, absent, found, phrase
from workflow_blocks.moondream2.objects import DetectedObject, DetectedPoint
from workflow_blocks.moondream2.prompt_tokens import Box
from workflow_blocks.moondream2.runtime import Query, Runtime

# The first number of the seeds kept aside; training has others.
KEPT_ASIDE = 11
SMALL = 0.2  # objects smaller than this share of the short side are reported apart
_MAX_OBJECTS = 12
_HARD_PROMPTS = 6
THING_NAMES = tuple(thing.name for thing in THINGS)


@dataclass
class Share:
    """How many of all were right."""

    right: int = 0
    all: int = 0

    def add(self, right: int, all: int = 1) -> None:
        self.right += right
        self.all += all

    @property
    def value(self) -> float:
        return self.right / self.all if self.all else float("nan")


@dataclass
class ThingScore:
    """How detection and pointing did.

    `all`, `large` and `small` are of objects by size; `absent_names` and `hard_prompts` are the shares of
    prompts for what is not there that found something (names; near misses, wrong colours, unknown words).
    """

    all: MeanAveragePrecision = field(default_factory=MeanAveragePrecision)
    large: MeanAveragePrecision = field(default_factory=MeanAveragePrecision)
    small: MeanAveragePrecision = field(default_factory=MeanAveragePrecision)
    absent_names: Share = field(default_factory=Share)
    hard_prompts: Share = field(default_factory=Share)
    point_recall: Share = field(default_factory=Share)
    point_precision: Share = field(default_factory=Share)


def pictures_kept_aside(
    styles: Sequence[Drawings], count: int, options: PictureOptions = SCENE_PICTURES, group: int = 0
) -> Iterable[tuple[np.random.Generator, Picture]]:
    """Pictures, and a random generator for questions about each."""
    for index in range(count):
        rng = np.random.default_rng((KEPT_ASIDE, group, index))
        yield rng, draw_picture(rng, styles, options)


def evaluate_things(runtime: Runtime, pictures: Iterable[tuple[np.random.Generator, Picture]]) -> ThingScore:
    score = ThingScore()
    for rng, picture in pictures:
        (image,) = runtime.encode_images([picture.image])
        detected = runtime.detect([Query(image, name) for name in THING_NAMES], _MAX_OBJECTS)
        _add_detections(score, picture, detected)
        hard = [
            one
            for one in (absent(rng, picture.items) for _ in range(_HARD_PROMPTS))
            if _is_absent(one, picture)
        ]
        for boxes in runtime.detect([Query(image, phrase(rng, one)) for one in hard], _MAX_OBJECTS):
            score.hard_prompts.add(bool(boxes))
        present = sorted({item.name for item in picture.items if not item.is_shape})
        pointed = runtime.point([Query(image, name) for name in present], _MAX_OBJECTS)
        for name, points in zip(present, pointed, strict=True):
            _add_points(score, [item.box for item in picture.items if item.name == name], points)
    return score


def _is_absent(wanted: Wanted, picture: Picture) -> bool:
    return found(wanted, picture.items) == []


def _add_detections(score: ThingScore, picture: Picture, detected: list[list[DetectedObject]]) -> None:
    """What counts for a name that also stands for others (a taxi is a car) is only what it names itself."""
    accepted: list[list[DetectedObject]] = []
    for name, boxes in zip(THING_NAMES, detected, strict=True):
        matches = [Wanted(name).matches(item) for item in picture.items]
        if not any(match is not False for match in matches):
            score.absent_names.add(bool(boxes))
        by_kind = [
            item.box
            for item, match in zip(picture.items, matches, strict=True)
            if match is not False and item.name != name
        ]
        accepted.append([box for box in boxes if not _overlaps_any(_corners(box), by_kind)])
    items = [item for item in picture.items if not item.is_shape]
    small = [item for item in items if is_small(item, picture)]
    large = [item for item in items if not is_small(item, picture)]
    for metric, wanted, ignored in (
        (score.all, items, []),
        (score.large, large, small),
        (score.small, small, large),
    ):
        metric.update(*_as_detections(picture, accepted, wanted, ignored))


def is_small(item: Item, picture: Picture) -> bool:
    height, width = picture.image.shape[:2]
    longer = max((item.box[2] - item.box[0]) * width, (item.box[3] - item.box[1]) * height)
    return longer < SMALL * min(height, width)


def _as_detections(
    picture: Picture, detected: list[list[DetectedObject]], wanted: Sequence[Item], ignored: Sequence[Item]
) -> tuple[sv.Detections, sv.Detections]:
    """Predictions and truth in pixels, without the predictions that find what is to be ignored."""
    height, width = picture.image.shape[:2]
    scale = np.array((width, height, width, height))
    rows = [
        (index, box)
        for index, (name, boxes) in enumerate(zip(THING_NAMES, detected, strict=True))
        for box in boxes
        if not _overlaps_any(_corners(box), [item.box for item in ignored if item.name == name])
    ]
    predicted = sv.Detections(
        xyxy=np.array([_corners(box) for _, box in rows]).reshape(-1, 4).clip(0, 1) * scale,
        class_id=np.array([index for index, _ in rows], int),
        confidence=np.array([box.confidence for _, box in rows], float),
    )
    truth = sv.Detections(
        xyxy=np.array([item.box for item in wanted], float).reshape(-1, 4) * scale,
        class_id=np.array([THING_NAMES.index(item.name) for item in wanted], int),
    )
    return predicted, truth


def _corners(box: DetectedObject) -> Box:
    return box.x_min, box.y_min, box.x_max, box.y_max


def _overlaps_any(box: Box, others: Sequence[Box]) -> bool:
    return any(iou(box, other) >= 0.5 for other in others)


def _add_points(score: ThingScore, boxes: list[Box], points: list[DetectedPoint]) -> None:
    """Each point counts for one box that it lies in, each box for one point."""
    left, hits = list(boxes), 0
    for point in points:
        inside = [box for box in left if box[0] <= point.x <= box[2] and box[1] <= point.y <= box[3]]
        if inside:
            left.remove(min(inside, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])))
            hits += 1
    score.point_recall.add(hits, len(boxes))
    score.point_precision.add(hits, len(points))
