"""Which split an image goes to, by its content: so every run chooses the same."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from workflow_blocks.datasets.formats import SPLITS, SplitName
from workflow_blocks.image_hash import image_hash


def content_of(image_bgr: npt.NDArray[np.uint8]) -> str:
    """32 hexadecimal digits that only equal images, uint8 (H, W, 3), share."""
    return str(image_hash(image_bgr).hexdigest()[:32])


def split_of(content: str, shares: Mapping[SplitName, float]) -> SplitName:
    """The split of an image of some content. `shares` may have any sum above 0."""
    place = int(content[:12], 16) / 16**12 * sum(shares.values())
    for split in SPLITS:
        place -= shares.get(split, 0)
        if place < 0:
            return split
    return max(shares, key=lambda split: shares[split])
