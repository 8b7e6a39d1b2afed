"""Decodes boxes and points, one object of each row after another.

Shapes: B rows. Coordinates are relative to the image, 0 to 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from workflow_blocks.moondream2.decoding import Decoding
from workflow_blocks.moondream2.region import (
    Choice,
    choose_coordinates,
    choose_sizes,
    probability_near,
    probability_near_point,
)

# A refined box averages the bins that are at most this far from the most likely one.
_REFINED_BINS = 32

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class DetectedObject:
    """One object as the model gives it; its box may reach beyond the image.

    `p_object` is the probability that there is another object, `p_box` that of all boxes close to this one.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    p_object: float
    p_box: float

    @property
    def confidence(self) -> float:
        """How sure the model is of the object and its box, 0 to 1: see docs/scores.md."""
        return self.p_object * self.p_box


@dataclass(frozen=True)
class DetectedPoint:
    """One point as the model gives it.

    `p_object` is the probability that there is another object, `p_place` that of all points near this one.
    """

    x: float
    y: float
    p_object: float
    p_place: float

    @property
    def confidence(self) -> float:
        """How sure the model is of the object and its place, 0 to 1: see docs/scores.md."""
        return self.p_object * self.p_place


class ObjectDecoder:
    """Decodes the objects that each row's prompt names, with boxes or as points."""

    object_type: type[DetectedObject] = DetectedObject

    def __init__(self, refine_boxes: bool = False) -> None:
        """`refine_boxes` places boxes between bins, rather than at the most likely bins."""
        self._refine_boxes = refine_boxes

    def boxes(self, decoding: Decoding, max_objects: int) -> list[list[DetectedObject]]:
        """Decodes at most `max_objects` boxes for each row."""
        n_rows = len(decoding)  # rows that end are dropped
        steps = self._steps(decoding, max_objects, with_sizes=True)
        return _of_each_row(n_rows, steps, self.object_type)

    def points(self, decoding: Decoding, max_objects: int) -> list[list[DetectedPoint]]:
        """Decodes at most `max_objects` points for each row."""
        n_rows = len(decoding)  # rows that end are dropped
        steps = self._steps(decoding, max_objects, with_sizes=False)
        return _of_each_row(n_rows, steps, DetectedPoint)

    def _steps(self, decoding: Decoding, max_objects: int, with_sizes: bool) -> list[tuple[Tensor, Tensor]]:
        """For each object in turn, the rows that have it and its values (B, fields)."""
        region, steps = decoding.model.region, []
        for count in range(1, max_objects + 1):
            more, p_object = _is_there_more(decoding)
            stay = more.nonzero().squeeze(1)
            p_object = p_object[stay]
            decoding.keep(stay)
            if not len(decoding):
                break
            x = choose_coordinates(region.coordinate_logits(decoding.hidden))
            decoding.read(region.encode_coordinate(x.value))
            y = choose_coordinates(region.coordinate_logits(decoding.hidden))
            is_last = count == max_objects
            if with_sizes:
                decoding.read(region.encode_coordinate(y.value))
                w, h = choose_sizes(region.size_logits(decoding.hidden))
                steps.append((decoding.places, self._box_values(p_object, x, y, w, h)))
                if not is_last:
                    decoding.read(region.encode_size(torch.stack((w.value, h.value), dim=-1)))
            else:
                p_place = probability_near_point(x) * probability_near_point(y)
                steps.append((decoding.places, torch.stack((x.value, y.value, p_object, p_place), dim=-1)))
                if not is_last:
                    decoding.read(region.encode_coordinate(y.value))
        return steps

    def _box_values(self, p_object: Tensor, x: Choice, y: Choice, w: Choice, h: Choice) -> Tensor:
        """The fields of `object_type` for each row, (B, number of fields)."""
        centre_x, centre_y, width, height = (
            choice.mean_near(_REFINED_BINS) if self._refine_boxes else choice.value for choice in (x, y, w, h)
        )
        box = (
            centre_x - width / 2,
            centre_y - height / 2,
            centre_x + width / 2,
            centre_y + height / 2,
        )
        p_box = probability_near(x, w) * probability_near(y, h)
        return torch.stack((*box, p_object, p_box), dim=-1)


def _of_each_row(
    n_rows: int, steps: list[tuple[Tensor, Tensor]], make: Callable[..., _Found]
) -> list[list[_Found]]:
    """The objects of each row, made of their values in the order of the steps."""
    found: list[list[_Found]] = [[] for _ in range(n_rows)]
    for places, values in steps:
        for place, row_values in zip(places.tolist(), values.tolist(), strict=True):
            found[place].append(make(*row_values))
    return found


def _is_there_more(decoding: Decoding) -> tuple[Tensor, Tensor]:
    """Whether each row continues with another object, on the CPU, and the probability of that; each (B,)."""
    ids = decoding.model.config.tokenizer
    coord, end = decoding.logits_of((ids.coord_id, ids.eos_id)).unbind(dim=-1)
    more = (coord > end).cpu()  # the only wait for the device, unless rows may end
    # That decides for most rows. For the others, yet another token may be likelier than the end.
    others = (~more).nonzero().squeeze(1)
    if len(others):
        more[others] = decoding.logits(others).argmax(dim=-1).cpu() != ids.eos_id
    return more, torch.sigmoid(coord - end)
