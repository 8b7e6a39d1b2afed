"""Points at what prompts name, as points at the objects of classes."""

import numpy as np

from workflow_blocks.blocks.common.prompts import PromptClasses
from workflow_blocks.blocks.moondream2.results import FoundPoints

# Points of two prompts of a class that are closer than this share of the image's longer side are one object.
SAME_OBJECT = 0.03


def points_of_classes(found: FoundPoints, classes: PromptClasses, width: int, height: int) -> FoundPoints:
    """Gives points the ids of their classes. An object that two prompts of a class find is one point.

    Args:
        found: points in pixels, whose class ids index `classes.prompts`.
        classes: the classes.
        width: of the image, in pixels.
        height: likewise.
    """
    nearest = SAME_OBJECT * max(width, height)
    places: list[int] = []
    ids: list[int] = []
    for class_id, of_class in enumerate(_prompts_of_classes(classes)):
        kept: list[int] = []
        for prompt in of_class:
            own = np.flatnonzero(found.class_id == prompt)
            distances = np.linalg.norm(found.xy[own][:, None] - found.xy[kept][None], axis=-1)
            kept += own[(distances > nearest).all(axis=1)].tolist()
        places += kept
        ids += [class_id] * len(kept)
    return FoundPoints(found.xy[places], np.array(ids, np.int64), found.confidence[places])


def _prompts_of_classes(classes: PromptClasses) -> list[list[int]]:
    """For each class the indices of its prompts."""
    of_classes: list[list[int]] = [[] for _ in classes.names]
    for class_id, prompt in classes.pairs:
        of_classes[class_id].append(prompt)
    return of_classes
