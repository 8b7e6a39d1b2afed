"""Bounds how many images, crops and prompts run together, by the memory that they use beside the weights."""

import math
from dataclasses import dataclass

import torch

from workflow_blocks.moondream2.config import Moondream2Config, VisionConfig
from workflow_blocks.moondream2.rows import ROOM_STEP

_MIB = 2**20
_FLOAT32 = 4
# On a CPU, activations that stay in its cache run faster than more of them at a time.
_CPU_ACTIVATIONS = 16 * _MIB


@dataclass(frozen=True)
class WorkingMemory:
    """A budget in bytes: half for the encoded images of a call, half for the tokens of its prompts."""

    n_bytes: int = 1024 * _MIB

    @classmethod
    def on(cls, device: torch.device) -> "WorkingMemory":
        """The default for a device: a quarter of a CUDA device's memory, else 1 GiB."""
        if device.type == "cuda":
            return cls(torch.cuda.get_device_properties(device).total_memory // 4)
        return cls()

    def images_at_once(self, config: Moondream2Config, itemsize: int) -> int:
        """How many encoded images to hold; `itemsize` is that of the model's dtype."""
        image_bytes = _bytes_of_token(config, itemsize) * config.prefix_length
        return max(1, self.n_bytes // 2 // image_bytes)

    def crops_at_once(self, config: VisionConfig, itemsize: int, device: torch.device) -> int:
        """How many crops go through the vision encoder in one pass."""
        values = config.n_patches * (2 * config.enc_ff_dim + 6 * config.enc_dim)
        room = _CPU_ACTIVATIONS if device.type == "cpu" else self.n_bytes // 4
        return max(1, room // (values * itemsize))

    def group_rows(
        self, config: Moondream2Config, itemsize: int, lengths: list[int], steps: int
    ) -> list[list[int]]:
        """Splits rows into groups that fit, keeping their order.

        Args:
            config: the model's sizes.
            itemsize: that of the model's dtype.
            lengths: each row's prompt tokens.
            steps: the most tokens that a row takes after its prompt.

        Returns:
            Indices into `lengths`.
        """
        groups: list[list[int]] = []
        longest = 0
        for row, length in enumerate(lengths):
            longest = max(longest, length)
            row_bytes = _bytes_of_row(config, itemsize, longest, steps)
            if groups and (len(groups[-1]) + 1) * row_bytes <= self.n_bytes // 2:
                groups[-1].append(row)
            else:
                groups.append([row])
                longest = length
        return groups

    def rows_at_once(self, config: Moondream2Config, itemsize: int, n_tokens: int) -> int:
        """How many rows of `n_tokens` own tokens fit while they advance by one token; at least 1."""
        return max(1, self.n_bytes // 2 // _bytes_of_row(config, itemsize, 1, n_tokens - 1))


def _bytes_of_token(config: Moondream2Config, itemsize: int) -> int:
    """The keys and values of one token in all layers."""
    text = config.text
    return 2 * text.n_layers * text.n_kv_heads * text.head_dim * itemsize


def _bytes_of_row(config: Moondream2Config, itemsize: int, length: int, steps: int) -> int:
    """The most memory that a row uses: what it stores, and the temporary values while its prompt is read."""
    text = config.text
    kept = math.ceil((length + steps) / ROOM_STEP) * ROOM_STEP * _bytes_of_token(config, itemsize)
    layer = length * (2 * text.ff_dim + 8 * text.dim) * itemsize
    # Attention scores and weights exist both in the model's dtype and in float32.
    scores = length * text.n_heads * (config.prefix_length + length) * 2 * (itemsize + _FLOAT32)
    logits = text.vocab_size * (itemsize + _FLOAT32)
    return kept + layer + scores + logits
