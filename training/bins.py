"""What training and measurements need to know about bins, beyond what detection does."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workflow_blocks.moondream2.objects import DetectedObject, ObjectDecoder
from workflow_blocks.moondream2.region import SIZE_OCTAVES, Choice
from workflow_blocks.moondream2.runtime import Runtime


def coordinate_to_bin(coordinates: Tensor, n_bins: int) -> Tensor:
    """Inverse of the runtime's `coordinate_from_bin`, as a real number between bins."""
    return coordinates * n_bins


def size_to_bin(sizes: Tensor, n_bins: int) -> Tensor:
    """Inverse of the runtime's `size_from_bin`, as a real number between bins; sizes must be above 0."""
    return (torch.log2(sizes) + SIZE_OCTAVES) / SIZE_OCTAVES * (n_bins - 1)


@dataclass(frozen=True)
class ObjectWithBins(DetectedObject):
    """A detected object with the probabilities of the chosen bins of its centre and size."""

    p_x: float
    p_y: float
    p_w: float
    p_h: float


class BinsDecoder(ObjectDecoder):
    """Decodes objects with the probabilities of their bins."""

    object_type = ObjectWithBins

    def _box_values(self, p_object: Tensor, x: Choice, y: Choice, w: Choice, h: Choice) -> Tensor:
        p_bins = torch.stack([choice.probabilities.amax(dim=-1) for choice in (x, y, w, h)], dim=-1)
        return torch.cat((super()._box_values(p_object, x, y, w, h), p_bins), dim=-1)


class RuntimeWithBins(Runtime):
    """A runtime whose detected objects are `ObjectWithBins`."""

    object_decoder_type = BinsDecoder
