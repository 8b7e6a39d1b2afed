"""Scenes cut to crops, kept on disk in shards so that many epochs cost one drawing.

Shapes: N crops of all scenes of a shard, K scenes, S crop size, g patches along a crop's side.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from training.scenes import COLOURS, SHAPES, Scene, draw_scene
from workflow_blocks.moondream2.config import VisionConfig
from workflow_blocks.moondream2.image_crops import Tiling, image_to_crops

COLOUR_NAMES = tuple(COLOURS)
MAX_OBJECTS = 8
SHARD_SCENES = 500

# A patch is taken to show an object that covers at least this share of it.
_MIN_COVERAGE = 0.12
_SAMPLES = 4  # coverage is measured at this many points along a patch's side


@dataclass(frozen=True)
class Shard:
    """Scenes as training reads them; all coordinates are relative to the image, 0 to 1."""

    crops: npt.NDArray[np.uint8]  # (N, S, S, 3)
    cells: npt.NDArray[np.uint8]  # (N, g, g): 0 for background, i + 1 for object i of the scene
    windows: npt.NDArray[np.float32]  # (N, 4): what a crop shows, x_min, y_min, x_max, y_max
    scene_of_crop: npt.NDArray[np.int64]  # (N,)
    tilings: npt.NDArray[np.int64]  # (K, 2)
    objects: npt.NDArray[np.float32]  # (K, MAX_OBJECTS, 6): colour, shape, x_min, y_min, x_max, y_max
    n_objects: npt.NDArray[np.int64]  # (K,)

    def crops_of_scene(self, scene: int) -> slice:
        first, last = np.searchsorted(self.scene_of_crop, (scene, scene + 1))
        return slice(int(first), int(last))

    def tiling(self, scene: int) -> Tiling:
        rows, cols = self.tilings[scene]
        return Tiling(int(rows), int(cols))


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard_{index:04d}.npz"


def draw_shards(folder: Path, n_shards: int, config: VisionConfig) -> Iterator[int]:
    """Draws what is missing of the first `n_shards` shards and yields each one's index.

    Shard i holds the scenes of seeds i * SHARD_SCENES and following.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n_shards):
        path = shard_path(folder, index)
        if not path.exists():
            first = index * SHARD_SCENES
            shard = _cut([draw_scene(seed) for seed in range(first, first + SHARD_SCENES)], config)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, **vars(shard))
            partial.rename(path)
        yield index


def load_shard(path: Path) -> Shard:
    with np.load(path, allow_pickle=False) as arrays:
        return Shard(**dict(arrays))


def _cut(scenes: list[Scene], config: VisionConfig) -> Shard:
    crops, cells, windows, scene_of_crop, tilings = [], [], [], [], []
    objects = np.zeros((len(scenes), MAX_OBJECTS, 6), np.float32)
    for index, scene in enumerate(scenes):
        scene_crops, tiling = image_to_crops(scene.image, config)
        crops.append(scene_crops)
        cells.append(_cells(scene, tiling, config))
        windows.append(_windows(tiling, config))
        scene_of_crop += [index] * len(scene_crops)
        tilings.append(tiling)
        height, width = scene.image.shape[:2]
        for row, item in zip(objects[index], scene.objects, strict=False):
            box = np.array(item.xyxy) / (width, height, width, height)
            row[:] = (COLOUR_NAMES.index(item.colour), SHAPES.index(item.shape), *box)
    return Shard(
        crops=np.concatenate(crops),
        cells=np.concatenate(cells),
        windows=np.concatenate(windows).astype(np.float32),
        scene_of_crop=np.array(scene_of_crop, np.int64),
        tilings=np.array(tilings, np.int64),
        objects=objects,
        n_objects=np.array([len(scene.objects) for scene in scenes], np.int64),
    )


def _windows(tiling: Tiling, config: VisionConfig) -> npt.NDArray[np.float64]:
    """What each crop shows of the image, (1 + rows * cols, 4)."""
    width = tiling.cols * config.window_px + 2 * config.margin_px
    height = tiling.rows * config.window_px + 2 * config.margin_px
    local = [
        (
            col * config.window_px / width,
            row * config.window_px / height,
            (col * config.window_px + config.crop_size) / width,
            (row * config.window_px + config.crop_size) / height,
        )
        for row in range(tiling.rows)
        for col in range(tiling.cols)
    ]
    return np.array([(0.0, 0.0, 1.0, 1.0), *local])


def _cells(scene: Scene, tiling: Tiling, config: VisionConfig) -> npt.NDArray[np.uint8]:
    """Which object each patch of each crop shows, (1 + rows * cols, g, g)."""
    side = config.grid * _SAMPLES
    step = config.enc_patch_size // _SAMPLES
    window = config.window_px // step
    width = tiling.cols * window + 2 * config.margin_px // step
    height = tiling.rows * window + 2 * config.margin_px // step
    local = cv2.resize(scene.object_map, (width, height), interpolation=cv2.INTER_NEAREST)
    maps = [cv2.resize(scene.object_map, (side, side), interpolation=cv2.INTER_NEAREST)]
    for row in range(tiling.rows):
        for col in range(tiling.cols):
            maps.append(local[row * window : row * window + side, col * window : col * window + side])
    samples = np.stack(maps).reshape(-1, config.grid, _SAMPLES, config.grid, _SAMPLES)
    coverage = np.stack(
        [(samples == i).mean(axis=(2, 4)) for i in range(1, len(scene.objects) + 1)]
        or [np.zeros((len(maps), config.grid, config.grid))]
    )
    shown = coverage.argmax(axis=0) + 1
    return np.where(coverage.max(axis=0) >= _MIN_COVERAGE, shown, 0).astype(np.uint8)
