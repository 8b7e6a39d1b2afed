"""Kills writers of datasets and checks what they leave.

`python -m tests.datasets.crash_trials --kills 100` kills more of them than the tests do.
"""

import multiprocessing
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from tests.datasets.samples import add, assert_holds, assert_labelled, file_name, load
from workflow_blocks.datasets import coco_file
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.formats import FORMATS

FORK = multiprocessing.get_context("fork")
N_IMAGES = 60
# The most images that a writer acknowledges before it is killed, and how long it lives on then.
MAX_ACKNOWLEDGED = 8
MAX_DELAY_S = 0.005


class CrashTrials:
    """One dataset whose writers are killed, one after the other."""

    def __init__(self, folder, format, seed=0):
        self.folder = folder
        self.format = format
        self.acknowledged = set()
        self._chance = random.Random(seed)

    def run(self):
        """Starts a writer, kills it at a random moment and checks the dataset."""
        first = self._chance.randrange(N_IMAGES)
        reader, writer = os.pipe()
        process = FORK.Process(target=_write_until_killed, args=(self.folder, self.format, first, writer))
        process.start()
        os.close(writer)
        with os.fdopen(reader) as lines:
            for _ in range(self._chance.randint(1, MAX_ACKNOWLEDGED)):
                self.acknowledged.add(int(next(lines)))
            time.sleep(self._chance.uniform(0, MAX_DELAY_S))
            process.kill()
            process.join()
            self.acknowledged |= {int(line) for line in lines}
        assert_sound(self.folder, self.format, self.acknowledged)

    def finish(self):
        """Writes all images: the dataset then holds them and no others."""
        with Dataset(self.folder, self.format) as dataset:
            for number in range(N_IMAGES):
                add(dataset, number)
        assert_holds(self.folder, self.format, range(N_IMAGES))


def assert_sound(folder, format, acknowledged):
    """All acknowledged images are there, and every image that is there has its labels."""
    found = load(folder, format)
    assert {file_name(number) for number in acknowledged} <= set(found)
    for number in range(N_IMAGES):
        if file_name(number) in found:
            assert_labelled(found, format, number)
    if format == "yolo":
        assert names_in(folder, "train/images/*.jpg") <= names_in(folder, "train/labels/*.txt")
    elif format == "pascal_voc":
        assert names_in(folder, "train/*.jpg") <= names_in(folder, "train/*.xml")


def names_in(folder, pattern):
    return {path.stem for path in folder.glob(pattern)}


def _write_until_killed(folder, format, first, acknowledged):
    # COCO files are then rewritten now and then.
    coco_file._FIRST_ROOM, coco_file._MIN_WASTE = 2000, 4000
    with Dataset(folder, format) as dataset:
        for number in range(first, first + 100_000):
            add(dataset, number % N_IMAGES)
            os.write(acknowledged, f"{number % N_IMAGES}\n".encode())


def main(kills: Annotated[int, typer.Option(help="How many writers of each format are killed.")] = 100):
    """Kills writers of each dataset format. An error ends the program."""
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            trials = CrashTrials(Path(folder), name, seed=time.time_ns())
            for _ in track(range(kills), description=f"{name:>10}"):
                trials.run()
            trials.finish()
            typer.echo(f"{name}: {kills} writers killed, {len(trials.acknowledged)} images, nothing lost")


if __name__ == "__main__":
    typer.run(main)
