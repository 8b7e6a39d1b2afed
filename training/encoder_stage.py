"""First stage: the vision encoder alone learns what every patch shows.

A dense head on the patch features tells colour, shape and box of the object under each patch. It
teaches the encoder in minutes what the text decoder's losses need hours for, and is dropped afterwards.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.scene_store import COLOUR_NAMES, Shard
from training.scenes import SHAPES

N_COLOURS, N_SHAPES = len(COLOUR_NAMES), len(SHAPES)


# Crops (N, S, S, 3), cells (N, g, g), objects (N, MAX_OBJECTS, 6) and windows (N, 4).
CropBatch = tuple[Tensor, Tensor, Tensor, Tensor]


class DenseHead(nn.Module):
    """Patch features (..., C) to logits of colour and shape (background last) and a box."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, N_COLOURS + 1 + N_SHAPES + 1 + 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        colours, shapes, boxes = self.head(features).split((N_COLOURS + 1, N_SHAPES + 1, 4), dim=-1)
        return colours, shapes, boxes


class DenseTargets:
    """What the dense head should say of each patch of a batch of crops (N, P)."""

    def __init__(self, cells: Tensor, objects: Tensor, windows: Tensor, absolute: bool = False) -> None:
        """Cells (N, g, g), the objects of each crop's scene (N, MAX_OBJECTS, 6), windows (N, 4).

        A box's centre is told from the patch's own centre, or with `absolute` from the crop's.
        """
        _, grid, _ = cells.shape
        index = cells.flatten(1).long()
        self.shown = index > 0
        chosen = objects.gather(1, (index - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, 6))
        self.colours = torch.where(self.shown, chosen[..., 0].long(), N_COLOURS)
        self.shapes = torch.where(self.shown, chosen[..., 1].long(), N_SHAPES)
        low, high = windows[:, None, :2], windows[:, None, 2:]
        corners = (
            (chosen[..., 2:].unflatten(-1, (2, 2)) - low.unsqueeze(2)) / (high - low).unsqueeze(2)
        ).clamp(0, 1)
        centres = (torch.arange(grid) + 0.5) / grid
        patch_xy = torch.stack((centres.repeat(grid), centres.repeat_interleave(grid)), dim=-1)
        size = (corners[..., 1, :] - corners[..., 0, :]).clamp(min=0.02)
        offset = (corners.mean(dim=2) - (0.5 if absolute else patch_xy)) * (grid / 2)
        self.boxes = torch.cat((offset, torch.log2(size)), dim=-1)


def dense_loss(predicted: tuple[Tensor, Tensor, Tensor], targets: DenseTargets) -> Tensor:
    """Cross-entropy of colour and shape, background and objects weighing the same, and box error."""
    colours, shapes, boxes = predicted
    shown = targets.shown
    share = torch.where(shown, 1 / shown.sum().clamp(min=1), 1 / (~shown).sum().clamp(min=1)).flatten()
    errors = F.cross_entropy(colours.flatten(0, 1), targets.colours.flatten(), reduction="none")
    errors = errors + F.cross_entropy(shapes.flatten(0, 1), targets.shapes.flatten(), reduction="none")
    box_error = F.smooth_l1_loss(boxes[shown], targets.boxes[shown], beta=0.02, reduction="sum")
    return (errors * share).sum() + box_error / shown.sum().clamp(min=1)


def turn_randomly(batch: CropBatch, rng: np.random.Generator) -> CropBatch:
    """Mirrors and transposes a batch; boxes are moved into each crop's own frame first."""
    crops, cells, objects, windows = batch
    low, size = windows[:, None, :2], windows[:, None, 2:] - windows[:, None, :2]
    first, second = (objects[..., 2:4] - low) / size, (objects[..., 4:6] - low) / size
    flip_x, flip_y, swap = rng.random(3) < 0.5
    for axis, flip in ((0, flip_x), (1, flip_y)):
        if flip:
            crops, cells = crops.flip(2 - axis), cells.flip(2 - axis)
            first, second = first.clone(), second.clone()
            first[..., axis], second[..., axis] = 1 - second[..., axis], 1 - first[..., axis]
    if swap:
        crops, cells = crops.transpose(1, 2), cells.transpose(1, 2)
        first, second = first.flip(-1), second.flip(-1)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(crops), 4)
    return crops, cells, torch.cat((objects[..., :2], first, second), dim=-1), whole


def crop_batch(shard: Shard, chosen: npt.NDArray[np.int64]) -> CropBatch:
    """The crops `chosen` of a shard."""
    return (
        torch.from_numpy(shard.crops[chosen]),
        torch.from_numpy(shard.cells[chosen]),
        torch.from_numpy(shard.objects[shard.scene_of_crop[chosen]]),
        torch.from_numpy(shard.windows[chosen]),
    )
