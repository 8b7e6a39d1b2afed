"""Writes a dataset of each format, and what readers must find in them, for `check_readers.py`.

`python -m tests.readers.make_exports FOLDER`
"""

import json
import random
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tests.datasets.test_details import MASKS, box_of
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.details import Detail, with_mask
from workflow_blocks.datasets.formats import FORMATS

HEIGHT, WIDTH = 97, 131
CLASS_NAMES = [
    "red circle",
    "naïve 猫",
    'quo"te',
    "<tag>&",
    "a: b # c",
    "- list",
    "a,b",
    "1",
    "{}",
    "x" * 256,
    "\u0646\u06cc\u0645\u200c\u0641\u0627\u0635\u0644\u0647",
    "👩\u200d👩\u200d👧",
    "हिन्दी",
    "null",
    "../up",
    "=1+1",
]
SPLITS = {"train": range(24), "valid": range(24, 32), "test": range(32, 36)}
NAMES = [
    *("photo {}.jpg", "фото_{}.jpg", "a.b.{}.jpeg", "images {}.jpg", "{}", "-rf{}.jpg", "a:b*?{}.jpg"),
    *(
        "\u0646\u06cc\u0645\u200c\u0641\u0627\u0635\u0644\u0647 {}.jpg",
        f"{'x' * 300}{{}}.jpg",
        "C:\\x\\y{}.jpg",
        "a%20b#{}.jpg",
        "e\u0301{}.png",
    ),
]


def boxes_of(number):
    """Up to four boxes: at the edges, as large as the image, under a pixel, and anywhere."""
    rng = random.Random(number)
    x, y = rng.uniform(0, WIDTH - 13), rng.uniform(0, HEIGHT - 13)
    boxes = [
        (x, y, x + rng.uniform(2, 12), y + rng.uniform(2, 12)),
        (x, y, float(WIDTH), float(HEIGHT)),
        (0.0, 0.0, x + 1 / 3, y + 1 / 3),
        (x, y, x + 0.4, y + 0.3),
        (0.0, 0.0, float(WIDTH), float(HEIGHT)),
        (1e-4, 1e-6, WIDTH - 1e-5, HEIGHT - 1e-3),
    ]
    return rng.sample(boxes, number % 5)


def main(folder: Annotated[Path, typer.Argument(help="A new folder.")]):
    """Writes the datasets, expected.json, and datasets with masks."""
    expected = {split: {} for split in SPLITS}
    for name in FORMATS:
        with Dataset(folder / name, name) as dataset:
            for split, numbers in SPLITS.items():
                for number in numbers:
                    image = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
                    boxes = boxes_of(number)
                    names = [CLASS_NAMES[(number + index) % len(CLASS_NAMES)] for index in range(len(boxes))]
                    source = NAMES[number % len(NAMES)].format(number)
                    path = dataset.add(image, boxes, names, split, source_name=source)
                    expected[split][path.name] = list(zip(names, boxes, strict=True))
    with Dataset(folder / "yolo_one_split", "yolo") as dataset:
        dataset.add(np.zeros((HEIGHT, WIDTH, 3), np.uint8), [(1, 2, 9, 8)], ["star"], "train")
    (folder / "expected.json").write_text(json.dumps(expected))
    for name in ("coco", "yolo"):
        write_masks(folder / "masks" / name, name)
    captions = {name: write_captions(folder / "captions" / name, name) for name in FORMATS}
    (folder / "captions" / "expected.json").write_text(json.dumps(captions))


def write_captions(folder, format):
    """The captions by split; one image of each split has none."""
    texts = {"train": ['a "red" car\nin two lines', "", "zwei Bälle"], "valid": ["a dog", ""]}
    rng = np.random.default_rng(1)
    with Dataset(folder, format) as dataset:
        for split, captions in texts.items():
            for caption in captions:
                image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
                dataset.add(image, [(1, 2, 9, 8)], ["star"], split, caption=caption)
    return texts


def write_masks(folder, format):
    """Each mask twice, in an image of its own: in the split for training and in that for validation."""
    written = {}
    with Dataset(folder, format) as dataset:
        for split in ("train", "valid"):
            for name, mask in MASKS.items():
                image = np.random.default_rng(len(written)).integers(0, 256, (*mask.shape, 3), np.uint8)
                detail = with_mask(Detail(0.25, name), mask)
                path = dataset.add(
                    image,
                    [box_of(mask)],
                    ["thing"],
                    split,
                    source_name=f"{split} {name}.png",
                    details=[detail],
                )
                written[path.name] = mask
    np.savez(folder / "masks.npz", **written)


if __name__ == "__main__":
    typer.run(main)
