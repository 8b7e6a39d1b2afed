"""Which boxes of two models on one image show the same object."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import supervision as sv

MIN_IOU = 0.5


class Box(NamedTuple):
    """A box that a model found: the index of its prompt, x_min, y_min, x_max, y_max in pixels, 0 to 1."""

    prompt: int
    xyxy: tuple[float, float, float, float]
    confidence: float


class Match(NamedTuple):
    """Two boxes that agree, as indices into the boxes of the two models, and their IoU."""

    reference: int
    other: int
    iou: float


@dataclass
class Agreement:
    """How the boxes of a model agree with those of a reference; IoU is at least `MIN_IOU` where they do."""

    n_reference: int = 0
    n_other: int = 0
    ious: list[float] = field(default_factory=list)

    @property
    def agree(self) -> int:
        return len(self.ious)

    @property
    def missed(self) -> int:
        """Boxes of the reference alone."""
        return self.n_reference - self.agree

    @property
    def added(self) -> int:
        """Boxes of the other model alone."""
        return self.n_other - self.agree

    @property
    def mean_iou(self) -> float | None:
        """Of the boxes that agree; None if there are none."""
        return float(np.mean(self.ious)) if self.ious else None


def match_boxes(reference: Sequence[Box], other: Sequence[Box]) -> list[Match]:
    """Pairs boxes of one image that have the same prompt, those that overlap most first.

    Each box is in at most one pair.
    """
    if not reference or not other:
        return []
    ious = np.nan_to_num(sv.box_iou_batch(_corners(reference), _corners(other)))
    prompts, other_prompts = (np.array([box.prompt for box in boxes]) for boxes in (reference, other))
    ious[prompts[:, None] != other_prompts] = 0
    candidates = np.argwhere(ious >= MIN_IOU)
    matches: list[Match] = []
    for row, column in sorted(candidates.tolist(), key=lambda pair: -ious[tuple(pair)]):
        if all(row != match.reference and column != match.other for match in matches):
            matches.append(Match(row, column, float(ious[row, column])))
    return matches


def agreement_by_prompt(
    reference: Sequence[Sequence[Box]], other: Sequence[Sequence[Box]], n_prompts: int
) -> list[Agreement]:
    """The agreement of each prompt over all images; both arguments have a list of boxes for each image."""
    agreements = [Agreement() for _ in range(n_prompts)]
    for own, others in zip(reference, other, strict=True):
        for box in own:
            agreements[box.prompt].n_reference += 1
        for box in others:
            agreements[box.prompt].n_other += 1
        for match in match_boxes(own, others):
            agreements[own[match.reference].prompt].ious.append(match.iou)
    return agreements


def total(agreements: Sequence[Agreement]) -> Agreement:
    """The agreement of several prompts together."""
    return Agreement(
        sum(part.n_reference for part in agreements),
        sum(part.n_other for part in agreements),
        [iou for part in agreements for iou in part.ious],
    )


def _corners(boxes: Sequence[Box]) -> np.ndarray:
    return np.array([box.xyxy for box in boxes], dtype=np.float64)
