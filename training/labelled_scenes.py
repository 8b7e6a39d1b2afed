"""Draws scenes of shapes as files: a labelled dataset to evaluate on, and images without labels."""

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from training.scenes import SHAPES, SceneOptions, draw_scene
from workflow_blocks.datasets.dataset import Dataset

# Seeds of their own: the bundled model was trained on none of them.
_FIRST_SEED = 70_000_000
_SMALL = SceneOptions(max_short_side=320, max_long_side=480)


def main(
    folder: Annotated[Path, typer.Option(help="Where `labelled` and `unlabelled` are written.")],
    labelled: Annotated[int, typer.Option(help="Images of each of the splits valid and test.")] = 12,
    unlabelled: Annotated[int, typer.Option(help="Images without labels.")] = 40,
) -> None:
    """Draws scenes: `labelled` is a YOLO dataset, `unlabelled` a folder of images."""
    seeds = iter(range(_FIRST_SEED, _FIRST_SEED + 2 * labelled + unlabelled))
    with Dataset(folder / "labelled", "yolo", list(SHAPES)) as dataset:
        for split in ("valid", "test"):
            for _ in range(labelled):
                seed = next(seeds)
                scene = draw_scene(seed, _SMALL)
                image = np.ascontiguousarray(scene.image[..., ::-1])
                boxes = [item.xyxy for item in scene.objects]
                shapes = [item.shape for item in scene.objects]
                dataset.add(image, boxes, shapes, split, ".jpg", source_name=f"{seed}.jpg")
    (folder / "unlabelled").mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        picture = np.ascontiguousarray(draw_scene(seed, _SMALL).image[..., ::-1])
        cv2.imwrite(str(folder / "unlabelled" / f"{seed}.jpg"), picture)


if __name__ == "__main__":
    typer.run(main)
