"""Draws the training's batches, each from a seed of stage and step, so that a resumed run sees the same.

Shapes: B pictures, N crops, S crop size, g patches along a crop's side.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.demo_config import DEMO_CONFIG
from training.dense import WordTable, item_table
from training.icons import Drawings
from training.packing import Packed, pack, pack_picture
from training.pictures import (
    CROP_PICTURES,
    CROWDED_PICTURES,
    MAX_ITEMS,
    SCENE_PICTURES,
    Item,
    Picture,
    draw_picture,
)
from training.scenes import Scene, draw_scene
from training.tasks import TaskMaker
from training.tokenizer import make_tokenizer
from workflow_blocks.moondream2.image_crops import image_to_crops
from workflow_blocks.moondream2.prompt_tokens import Prompts

SEED = 20261125
# Of the pictures, this share is of shapes alone, drawn by `training.scenes`.
SHAPE_SCENES = 0.2
# Of the others, this share is full of smaller objects.
CROWDED = 0.3
# Seeds of `draw_scene` from here on are kept aside for tests and evaluation.
FIRST_SEED_KEPT_ASIDE = 1_000_000

# A patch is taken to show an item that covers at least this share of it.
_MIN_COVERAGE = 0.12
_SAMPLES = 4  # coverage is measured at this many points along a patch's side

UInt8Array = npt.NDArray[np.uint8]


@dataclass
class CropBatch:
    """Pictures as large as a crop, for the encoder."""

    crops: Tensor  # (B, S, S, 3) uint8
    cells: Tensor  # (B, g, g): 0 for background, i + 1 for item i
    items: Tensor  # (B, MAX_ITEMS, 6)
    words: Tensor  # (names, longest): a wording of each name

    def to(self, device: torch.device) -> "CropBatch":
        return CropBatch(*(value.to(device) for value in vars(self).values()))


@dataclass
class PictureBatch:
    """Pictures in crops, with tasks about them."""

    crops: Tensor  # (N, S, S, 3) uint8, of all pictures
    tilings: list[tuple[int, int]]
    cells: Tensor  # (B, g, g), of the global crops
    items: Tensor  # (B, MAX_ITEMS, 6)
    words: Tensor
    packed: Packed

    def to(self, device: torch.device) -> "PictureBatch":
        return PictureBatch(
            self.crops.to(device), self.tilings, self.cells.to(device), self.items.to(device),
            self.words.to(device), self.packed.to(device),
        )  # fmt: skip


class Batches(Dataset[CropBatch | PictureBatch]):
    """The batches of a stage by step."""

    def __init__(
        self, styles: Sequence[Drawings], stage: int, batch_size: int, of_crops: bool, seed: int = SEED
    ) -> None:
        self._styles = styles
        self._stage = stage
        self._batch_size = batch_size
        self._of_crops = of_crops
        self._seed = seed
        tokenizer = make_tokenizer()
        self._words = WordTable(tokenizer)
        self._tasks = TaskMaker(Prompts(DEMO_CONFIG, tokenizer), tokenizer)

    def __getitem__(self, step: int) -> CropBatch | PictureBatch:
        rng = np.random.default_rng((self._seed, self._stage, step))
        return self._crop_batch(rng) if self._of_crops else self._picture_batch(rng)

    def _crop_batch(self, rng: np.random.Generator) -> CropBatch:
        pictures = [draw_picture(rng, self._styles, CROP_PICTURES) for _ in range(self._batch_size)]
        return CropBatch(
            torch.from_numpy(np.stack([picture.image for picture in pictures])),
            torch.from_numpy(np.stack([cells_of(picture) for picture in pictures])),
            torch.from_numpy(np.stack([item_table(picture.items) for picture in pictures])),
            self._words.pick(rng),
        )

    def _picture_batch(self, rng: np.random.Generator) -> PictureBatch:
        pictures = [self._draw(rng) for _ in range(self._batch_size)]
        crops = [image_to_crops(picture.image, DEMO_CONFIG.vision) for picture in pictures]
        rows = [
            pack_picture(rng, picture.items, self._tasks.tasks(rng, picture.items), DEMO_CONFIG)
            for picture in pictures
        ]
        return PictureBatch(
            torch.from_numpy(np.concatenate([part.crops for part in crops])),
            [(part.tiling.rows, part.tiling.cols) for part in crops],
            torch.from_numpy(np.stack([cells_of(picture) for picture in pictures])),
            torch.from_numpy(np.stack([item_table(picture.items) for picture in pictures])),
            self._words.pick(rng),
            pack(rows),
        )

    def _draw(self, rng: np.random.Generator) -> Picture:
        if rng.random() < SHAPE_SCENES:
            return picture_of_scene(draw_scene(int(rng.integers(FIRST_SEED_KEPT_ASIDE))))
        options = CROWDED_PICTURES if rng.random() < CROWDED else SCENE_PICTURES
        return draw_picture(rng, self._styles, options)


def draw_ahead(batches: Batches, first: int, last: int, workers: int) -> Iterator[CropBatch | PictureBatch]:
    """The batches of steps `first` to `last` - 1, drawn by other processes (or this one, with 0 workers)."""
    # Not forked: a copy of a process whose threads have computed may wait for them for ever.
    ahead: dict[str, Any] = {"prefetch_factor": 6, "multiprocessing_context": "spawn"} if workers else {}
    loader = DataLoader(
        batches, batch_size=None, sampler=range(first, last), num_workers=workers,
        worker_init_fn=_give_way, **ahead,
    )  # fmt: skip
    yield from loader


def picture_of_scene(scene: Scene) -> Picture:
    """A scene of shapes alone as a picture."""
    height, width = scene.image.shape[:2]
    items = []
    for shape in scene.objects[:MAX_ITEMS]:
        x_min, y_min, x_max, y_max = shape.xyxy
        box = (x_min / width, y_min / height, x_max / width, y_max / height)
        items.append(Item(shape.shape, shape.colour, frozenset(), box))
    return Picture(scene.image, tuple(items), scene.object_map)


def cells_of(picture: Picture) -> UInt8Array:
    """Which item each patch of the global crop shows, (g, g)."""
    grid = DEMO_CONFIG.vision.grid
    side = grid * _SAMPLES
    small = cv2.resize(picture.item_map, (side, side), interpolation=cv2.INTER_NEAREST)
    samples = small.reshape(grid, _SAMPLES, grid, _SAMPLES)
    if not picture.items:
        return np.zeros((grid, grid), np.uint8)
    coverage = np.stack([(samples == i).mean(axis=(1, 3)) for i in range(1, len(picture.items) + 1)])
    return np.where(coverage.max(axis=0) >= _MIN_COVERAGE, coverage.argmax(axis=0) + 1, 0).astype(np.uint8)


def _give_way(_: int) -> None:
    """Draws when the training leaves a core idle: a thread of it that must wait holds up all others."""
    if hasattr(os, "nice"):  # not on Windows
        os.nice(10)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
