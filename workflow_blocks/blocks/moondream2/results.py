"""What a model says about one image, before it becomes the outputs of the block.

Coordinates are in pixels of the image that the model saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from workflow_blocks.blocks.common.detections import ImageDetections

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class TextAnswer:
    """A text, its probability as the whole answer, and the reasoning before it, if asked for.

    `is_cut` says that the text reached its most tokens before its end.
    """

    text: str
    probability: float
    reasoning: dict[str, Any] | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class FoundPoints:
    """Points (N, 2), with class ids and confidences (N,)."""

    xy: npt.NDArray[np.float64]
    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]

    @classmethod
    def none(cls) -> "FoundPoints":
        return cls(np.empty((0, 2)), np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class ImageResult:
    """What a task gave. The tasks fill what they have.

    Attributes:
        answers: to the questions; of grounded tasks to all questions about the first box, and so on.
        scores: of classification, the probability of each class.
        classes: of `object-detection`, what the model named.
        found: boxes; class ids index the classes.
        points: points; class ids index the classes.
        error: whether an answer could not be used.
    """

    answers: Sequence[TextAnswer] = ()
    scores: Sequence[float] = ()
    classes: Sequence[str] = ()
    found: ImageDetections | None = None
    points: FoundPoints | None = None
    error: bool = field(default=False)
