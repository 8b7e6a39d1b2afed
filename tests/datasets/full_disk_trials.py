"""Changes datasets on a disk that is nearly full, and checks what is left.

`python -m tests.datasets.full_disk_trials FOLDER` needs a small disk of its own, mounted at FOLDER, such as a
`tmpfs` of 3 MB. `in_small_disk` starts a program with one.
"""

import contextlib
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from tests.datasets.samples import add, discard, image, state
from workflow_blocks.datasets.dataset import Dataset
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.formats import FORMATS

N_IMAGES = 12


def in_small_disk(folder, *arguments, size="3m"):
    """A command that runs a program with a small disk mounted at a folder, which only it sees."""
    program = (
        f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(folder))} && exec {shlex.join(arguments)}"
    )
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", program]


def run_trial(root, format, chance):
    """Returns whether the change failed."""
    folder = root / "set"
    with Dataset(folder, format) as dataset:
        for number in range(N_IMAGES):
            add(dataset, number, "valid" if number % 4 == 3 else "train")
    before = state(folder, format)
    change = random_change(chance)
    filler = root / "filler"
    failure = None
    fill(root, filler, chance.randrange(0, 160, 4) * 1024)
    try:
        with Dataset(folder, format) as dataset:
            change(dataset)
    except (OSError, DatasetError) as error:
        failure = error
    found = state(folder, format)
    filler.unlink()
    with Dataset(folder, format) as dataset:
        change(dataset)
    after = state(folder, format)
    assert found in (before, after) if failure else found == after, failure
    return failure is not None


def random_change(chance):
    """Adds, replaces, moves or removes an image; some with a new class, some with many boxes."""
    number = chance.randrange(N_IMAGES)
    kind = chance.choice(["add", "new class", "many boxes", "move", "discard"])
    if kind == "discard":
        return lambda dataset: discard(dataset, number)
    if kind == "move":
        return lambda dataset: add(dataset, number, "test")
    names = {"new class": ["cat"], "many boxes": ["dog"] * 300}.get(kind, ["star"])
    target = image(number, *chance.choice([(24, 32), (64, 64)]))
    return lambda dataset: dataset.add(target, [(1, 2, 9, 8)] * len(names), names, "train")


def fill(root, filler, n_free):
    """Fills the disk up to some bytes."""
    statistics = os.statvfs(root)
    with contextlib.suppress(OSError), filler.open("wb") as file:
        file.write(b"x" * max(0, statistics.f_bavail * statistics.f_frsize - n_free))


def empty(root):
    subprocess.run(["rm", "-rf", *map(str, root.iterdir())], check=True)


def main(
    folder: Annotated[Path, typer.Argument(help="A small disk, which is emptied.")],
    trials: Annotated[int, typer.Option(help="How many changes of each format.")] = 60,
    seed: int = 0,
):
    """Changes datasets of each format on a full disk. An error ends the program."""
    assert folder.is_mount(), "not a disk of its own"
    for name in FORMATS:
        chance = random.Random(seed)
        n_failed = 0
        for _ in track(range(trials), description=f"{name:>10}", disable=not sys.stdout.isatty()):
            empty(folder)
            n_failed += run_trial(folder, name, chance)
        typer.echo(f"{name}: {trials} changes, {n_failed} of them failed, nothing half done")


if __name__ == "__main__":
    typer.run(main)
