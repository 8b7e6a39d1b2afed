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

from tests.datasets.samples import (
    add,
    assert_labelled,
    assert_nothing_left_over,
    discard,
    file_name,
    load_all,
)
from workflow_blocks.datasets import coco_file
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.formats import FORMATS

FORK = multiprocessing.get_context("fork")
N_IMAGES = 60
N_WRITERS = 2
# How long writers live, after each has acknowledged an image.
MAX_DELAY_S = 0.05
# COCO files larger than this are written later.
MAX_BYTES_AT_ONCE = 6000


class CrashTrials:
    """One dataset whose writers are killed. Each writer has its own images."""

    def __init__(self, folder, format, seed=0):
        self.folder = folder
        self.format = format
        # Where each image may be: one place, or two if its writer was killed meanwhile. None is nowhere.
        self.places = {number: {None} for number in range(N_IMAGES)}
        self._chance = random.Random(seed)

    def run(self):
        """Starts writers, kills them at a random moment and checks the dataset."""
        writers = [self._start(part) for part in range(N_WRITERS)]
        for _, lines in writers:
            for _ in range(2):
                self._note(next(lines))
        time.sleep(self._chance.uniform(0, MAX_DELAY_S))
        for process, _ in writers:
            process.kill()
        for process, lines in writers:
            process.join()
            with lines:
                for line in lines:
                    self._note(line)
        Dataset(self.folder, self.format).close()  # completes what was left undone
        self.check()

    def _start(self, part):
        reader, writer = os.pipe()
        arguments = (self.folder, self.format, part, self._chance.random(), writer)
        process = FORK.Process(target=_write_until_killed, args=arguments)
        process.start()
        os.close(writer)
        return process, os.fdopen(reader)

    def _note(self, line):
        number, place, is_done = line.split()
        place = None if place == "None" else place
        self.places[int(number)] = {place} if is_done == "done" else self.places[int(number)] | {place}

    @property
    def n_acknowledged(self):
        return sum(places != {None} for places in self.places.values())

    def check(self):
        """Every image is in one split, where it was acknowledged, with its boxes; no file is left over."""
        found = load_all(self.folder, self.format)
        for number, places in self.places.items():
            is_in = {split for split, images in found.items() if file_name(number) in images}
            assert is_in in [{place} - {None} for place in places], (number, is_in, places)
            for split in is_in:
                assert_labelled(found[split], self.format, number)
            self.places[number] = is_in or {None}
        assert_nothing_left_over(self.folder, self.format, found)


def _write_until_killed(folder, format, part, seed, acknowledged):
    coco_file.MAX_BYTES_AT_ONCE = MAX_BYTES_AT_ONCE
    chance = random.Random(seed)
    while True:
        number = chance.randrange(part, N_IMAGES, N_WRITERS)
        place = chance.choice(["train", "train", "valid", None])
        os.write(acknowledged, f"{number} {place} begun\n".encode())
        with Dataset(folder, format) as dataset:
            if place is None:
                discard(dataset, number)
            else:
                add(dataset, number, place)
        os.write(acknowledged, f"{number} {place} done\n".encode())


def main(kills: Annotated[int, typer.Option(help="How many writers of each format are killed.")] = 100):
    """Kills writers of each dataset format. An error ends the program."""
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            trials = CrashTrials(Path(folder), name, seed=time.time_ns())
            for _ in track(range(kills // N_WRITERS), description=f"{name:>10}"):
                trials.run()
            typer.echo(f"{name}: {kills} writers killed, {trials.n_acknowledged} images, nothing lost")


if __name__ == "__main__":
    typer.run(main)
