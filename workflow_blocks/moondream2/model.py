"""Wires the parts of a Moondream2 under the names of a published checkpoint."""

import torch
from torch import nn

from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.region import Region
from workflow_blocks.moondream2.text import Text
from workflow_blocks.moondream2.vision import Vision

# Values. The released model has 1.9 billion.
_LARGE = 2**25


class Moondream2(nn.Module):
    """Vision encoder, text decoder and region heads, with uninitialised weights."""

    def __init__(self, config: Moondream2Config) -> None:
        super().__init__()
        self.config = config
        self.vision = Vision(config.vision)
        self.text = Text(config.text)
        self.region = Region(config.region)

    @classmethod
    def without_weights(cls, config: Moondream2Config) -> "Moondream2":
        """A model whose weights have shapes, and no values; it takes no memory."""
        with torch.device("meta"):
            return cls(config)

    @property
    def is_large(self) -> bool:
        """Whether narrow dtypes make it faster on a CPU. They also change more of a smaller model's boxes."""
        return sum(weight.numel() for weight in self.state_dict().values()) >= _LARGE

    def compile_blocks(self) -> None:
        """Lets `torch.compile` fuse the layers around attention; the first images then take longer."""
        for block in self.vision.blocks:
            block.compile(dynamic=True)
        for block in self.text.blocks:
            for step in ("heads", "add"):
                setattr(block, step, torch.compile(getattr(block, step), dynamic=True))
