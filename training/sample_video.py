"""Draws the sample video, shapes that move over a line: `python -m training.sample_video`."""

from pathlib import Path

import cv2
import numpy as np
import supervision as sv

from training.scenes import UInt8Array

FILE = Path("workflow_blocks/sample_video/crossing.mp4")
WIDTH, HEIGHT = 640, 480
N_FRAMES, FRAMES_PER_SECOND = 40, 10


def draw_frame(moment: float) -> UInt8Array:
    """A frame (H, W, 3), BGR; `moment` goes from 0 to 1.

    Two red circles go down through the middle of the height, one goes up, and a blue square passes by.
    """
    shade = np.linspace(150, 205, HEIGHT).astype(np.uint8)[:, None, None]
    frame = np.ascontiguousarray(np.broadcast_to(shade, (HEIGHT, WIDTH, 3)))
    for x, start, end, radius in ((110, 90, 400, 62), (300, 60, 380, 48), (500, 410, 80, 55)):
        y = round(start + (end - start) * moment)
        cv2.circle(frame, (x, y), radius, (32, 28, 205), cv2.FILLED, cv2.LINE_AA)
    left = round(20 + 480 * moment)
    cv2.rectangle(frame, (left, 20), (left + 56, 76), (200, 70, 30), cv2.FILLED)
    return frame


def main() -> None:
    FILE.parent.mkdir(exist_ok=True)
    with sv.VideoSink(str(FILE), sv.VideoInfo(width=WIDTH, height=HEIGHT, fps=FRAMES_PER_SECOND)) as sink:
        for number in range(N_FRAMES):
            sink.write_frame(draw_frame(number / (N_FRAMES - 1)))


if __name__ == "__main__":
    main()
