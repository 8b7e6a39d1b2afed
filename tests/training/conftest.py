import cv2
import numpy as np
import pytest

from training.icons import SIDES, in_all_sides
from training.names import THINGS


def drawn(number):
    """A drawing of our own: a filled ring whose colours and proportions are those of a number."""
    rng = np.random.default_rng(number)
    side = SIDES[0]
    image = np.zeros((side, side, 4), np.uint8)
    outer, inner = ((*rng.integers(60, 256, 3).tolist(), 255) for _ in range(2))
    axes = (side // 2 - 8, round(side * rng.uniform(0.2, 0.45)))
    cv2.ellipse(image, (side // 2, side // 2), axes, 0, 0, 360, outer, -1)
    cv2.circle(image, (side // 3, side // 2), side // 8, inner, -1)
    return in_all_sides(image)


@pytest.fixture(scope="session")
def drawings():
    """A style in which every thing has one drawing, made without the icon sets."""
    return {thing.name: (drawn(number),) for number, thing in enumerate(THINGS)}
