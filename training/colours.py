"""Names the colour of a drawing, where people would agree on one."""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

COLOUR_WORDS = (
    "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey"
)  # fmt: skip

# A drawing has a colour that this share of it has; below the second share it surely has not.
_CLEAR, _ABSENT = 0.55, 0.2
_LEVELS = 32  # of each channel in the table of colours

# Hues in degrees, where one name ends and the next has not begun; what lies between has no clear name.
_HUES = {"red": (-12, 11), "orange": (18, 38), "yellow": (46, 64), "green": (78, 165), "blue": (196, 252),
         "purple": (262, 300), "pink": (312, 342)}  # fmt: skip


def name_colour(image: npt.NDArray[np.uint8]) -> tuple[str | None, frozenset[str]]:
    """The colour of what an RGBA image (H, W, 4) shows, if it clearly has one, and doubtful ones."""
    seen = image[image[..., 3] > 127][:, :3].astype(np.int64) * _LEVELS // 256
    if not len(seen):
        return None, frozenset(COLOUR_WORDS)
    words = _table()[seen[:, 0], seen[:, 1], seen[:, 2]]
    shares = np.bincount(words, minlength=len(COLOUR_WORDS) + 1) / len(words)
    unclear = shares[-1] / 2
    best = int(shares[:-1].argmax())
    clear = COLOUR_WORDS[best] if shares[best] >= _CLEAR else None
    doubtful = frozenset(
        word
        for word, share in zip(COLOUR_WORDS, shares, strict=False)
        if word != clear and share + unclear >= _ABSENT
    )
    return clear, doubtful


@lru_cache
def _table() -> npt.NDArray[np.int64]:
    """For each colour its place in `COLOUR_WORDS`, or one more if it has no clear name."""
    levels = ((np.arange(_LEVELS) + 0.5) * 256 / _LEVELS).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3)
    hsv = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV_FULL)[0].astype(np.float64)
    hue, saturation, value = hsv[:, 0] * 360 / 256, hsv[:, 1] / 255, hsv[:, 2] / 255
    table = np.full(len(hue), len(COLOUR_WORDS))
    vivid = (saturation > 0.45) & (value > 0.4)
    for word, (low, high) in _HUES.items():
        inside = (hue - low) % 360 <= high - low
        table[vivid & inside] = COLOUR_WORDS.index(word)
    warm = (hue + 15) % 360 < 55
    rose = (hue + 60) % 360 < 72
    orange_as_brown = warm & (hue < 180) & (hue > 8) & (value < 0.68) & (saturation > 0.3)
    table[orange_as_brown & (value > 0.2)] = COLOUR_WORDS.index("brown")
    table[rose & (saturation > 0.18) & (saturation < 0.5) & (value > 0.85)] = COLOUR_WORDS.index("pink")
    table[(value < 0.25) | ((saturation < 0.2) & (value < 0.3))] = COLOUR_WORDS.index("black")
    pale = saturation < 0.13
    table[pale & (value > 0.86)] = COLOUR_WORDS.index("white")
    table[pale & (value > 0.35) & (value < 0.8)] = COLOUR_WORDS.index("grey")
    return table.reshape(_LEVELS, _LEVELS, _LEVELS)
