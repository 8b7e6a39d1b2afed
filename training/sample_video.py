"""Draws a sample video for a model that `make train` made: cars that cross the middle of a street."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import supervision as sv
import typer

from training.icons import Drawings, load_trained_drawings
from training.sample_images import HEIGHT, WIDTH, Placed, draw, street
from training.scenes import UInt8Array

N_FRAMES, FRAMES_PER_SECOND = 40, 10


@dataclass(frozen=True)
class Moving:
    """A thing whose middle goes from `start` to `end`, in pixels, during the video."""

    thing: Placed
    start: float
    end: float


STANDING = (
    Placed("house", 90, 250, 190),
    Placed("tree", 250, 250, 150),
    Placed("house", 420, 250, 170, drawing=1),
    Placed("tree", 570, 250, 160),
)
# Two cars drive to the left over the middle, one to the right; a dog stays on its side.
MOVING = (
    Moving(Placed("car", 0, 345, 130), 560, 90),
    Moving(Placed("car", 0, 345, 130, style=3), 760, 240),
    Moving(Placed("car", 0, 455, 150, style=2, mirrored=True), 80, 430),
    Moving(Placed("dog", 0, 465, 70), 590, 550),
)


def draw_frame(moment: float, styles: Sequence[Drawings]) -> UInt8Array:
    """A frame (H, W, 3), RGB; `moment` goes from 0 to 1."""
    moving = [replace(one.thing, x=one.start + (one.end - one.start) * moment) for one in MOVING]
    return draw(street(), (*STANDING, *moving), styles)


def main(file: Annotated[Path, typer.Option(help="The video to write.")]) -> None:
    """Draws the sample video."""
    styles = load_trained_drawings()
    file.parent.mkdir(parents=True, exist_ok=True)
    with sv.VideoSink(str(file), sv.VideoInfo(width=WIDTH, height=HEIGHT, fps=FRAMES_PER_SECOND)) as sink:
        for moment in np.linspace(0, 1, N_FRAMES):
            sink.write_frame(cv2.cvtColor(draw_frame(float(moment), styles), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    typer.run(main)
