"""Answers about detections: under which names the data of detections holds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import supervision as sv
from inference.core.workflows.execution_engine.constants import DETECTION_ID_KEY

# Of one question; other names follow it after an underscore, such as `answer_probability`.
ANSWER = "answer"


def attribute_names(detections: sv.Detections) -> list[str]:
    """The names of all answers and their probabilities, in their order; none if nothing was asked."""
    return [name for name in detections.data if name == ANSWER or name.startswith(f"{ANSWER}_")]


def attribute(detections: sv.Detections, name: str, index: int) -> Any:
    """The value of one detection: a text, number, boolean or list, or None where there is no answer."""
    value = detections.data[name][index]
    return value.item() if isinstance(value, np.generic) else value


def attributes_of(detections: sv.Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    """What Inference's serialised predictions leave out of each detection, in their order."""
    return [
        {DETECTION_ID_KEY: str(detections.data[DETECTION_ID_KEY][index])}
        | {name: attribute(detections, name, index) for name in names}
        for index in range(len(detections))
    ]
