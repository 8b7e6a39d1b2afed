"""Coordinates and sizes as the text decoder reads and writes them.

All coordinates and sizes are relative to the image, 0 to 1.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from workflow_blocks.moondream2.config import RegionConfig
from workflow_blocks.moondream2.layers import Linear, Mlp

# Sizes are binned on a log scale, from 2 ** -SIZE_OCTAVES to 1.
SIZE_OCTAVES = 10.0

# How far a box may differ from the chosen one to count as near, as a share of its size: see docs/scores.md.
NEAR = 0.2
# How far a point may lie from the chosen one to count as near, relative to the image.
NEAR_POINT = 0.03


class Region(nn.Module):
    """Encodes coordinates and sizes to embeddings and decodes hidden states to bin logits."""

    def __init__(self, config: RegionConfig) -> None:
        super().__init__()
        self.config = config
        self.coord_features = nn.Parameter(torch.empty(1, config.coord_feat_dim // 2))
        self.coord_encoder = Linear(config.coord_feat_dim, config.dim)
        self.coord_decoder = Mlp(config.dim, config.inner_dim, config.coord_out_dim)
        self.size_features = nn.Parameter(torch.empty(2, config.size_feat_dim // 2))
        self.size_encoder = Linear(config.size_feat_dim, config.dim)
        self.size_decoder = Mlp(config.dim, config.inner_dim, config.size_out_dim)

    def encode_coordinate(self, coordinates: Tensor) -> Tensor:
        """Coordinates (...,) to embeddings (..., D)."""
        values = coordinates.unsqueeze(-1).to(self.coord_features.dtype)
        return self.coord_encoder(_fourier_features(values, self.coord_features))

    def encode_size(self, sizes: Tensor) -> Tensor:
        """Widths and heights (..., 2) to embeddings (..., D)."""
        values = sizes.to(self.size_features.dtype)
        return self.size_encoder(_fourier_features(values, self.size_features))

    def coordinate_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits over the coordinate bins (..., bins)."""
        return self.coord_decoder(hidden)

    def size_logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) to logits over the bins of width and height (..., 2, bins)."""
        return self.size_decoder(hidden).unflatten(-1, (2, -1))


class Choice(NamedTuple):
    """One coordinate or size for each of B rows, chosen among bins. All float32."""

    value: Tensor  # (B,), of the most likely bin
    probabilities: Tensor  # (B, bins)
    bin_values: Tensor  # (bins,)

    def mean_near(self, reach: int) -> Tensor:
        """The expected value (B,) among the bins at most `reach` away from the chosen one."""
        peak = self.probabilities.argmax(dim=-1, keepdim=True)
        near = (torch.arange(len(self.bin_values), device=peak.device) - peak).abs() <= reach
        weights = self.probabilities * near
        return (weights @ self.bin_values) / weights.sum(dim=-1)


def choose_coordinates(logits: Tensor) -> Choice:
    """Logits (B, bins) to each row's coordinate."""
    n_bins = logits.shape[-1]
    return _choose(logits, coordinate_from_bin(torch.arange(n_bins, device=logits.device), n_bins))


def choose_sizes(logits: Tensor) -> tuple[Choice, Choice]:
    """Logits (B, 2, bins) to each row's width and height."""
    n_bins = logits.shape[-1]
    bin_values = size_from_bin(torch.arange(n_bins, device=logits.device), n_bins)
    return _choose(logits[:, 0], bin_values), _choose(logits[:, 1], bin_values)


def probability_near(centre: Choice, size: Choice) -> Tensor:
    """How likely the bins make a box close to the chosen one along one axis (B,), 0 to 1.

    It is the probability of a centre at most `NEAR` sizes away, times that of a size that differs by at
    most that share. Unlike the probability of a single bin, it stays high when the model spreads its
    answer over neighbouring bins, which differ by less than a pixel.
    """
    chosen = size.value.unsqueeze(-1)
    shift = (centre.bin_values - centre.value.unsqueeze(-1)).abs()
    ratio = torch.minimum(size.bin_values, chosen) / torch.maximum(size.bin_values, chosen)
    near_centre = (centre.probabilities * (shift <= NEAR * chosen)).sum(dim=-1)
    near_size = (size.probabilities * (ratio >= 1 - NEAR)).sum(dim=-1)
    return near_centre * near_size


def probability_near_point(coordinate: Choice) -> Tensor:
    """How likely the bins at most `NEAR_POINT` away from the chosen one are (B,), 0 to 1."""
    shift = (coordinate.bin_values - coordinate.value.unsqueeze(-1)).abs()
    return (coordinate.probabilities * (shift <= NEAR_POINT)).sum(dim=-1)


def _choose(logits: Tensor, bin_values: Tensor) -> Choice:
    probabilities = logits.float().softmax(dim=-1)
    return Choice(bin_values[probabilities.argmax(dim=-1)], probabilities, bin_values)


def coordinate_from_bin(bins: Tensor, n_bins: int) -> Tensor:
    """Bin numbers to float32 coordinates: bin / n_bins."""
    return bins.to(torch.float32) / n_bins


def size_from_bin(bins: Tensor, n_bins: int) -> Tensor:
    """Bin numbers to float32 sizes: 2 ** (bin / (n_bins - 1) * 10 - 10)."""
    return torch.exp2(bins.to(torch.float32) / (n_bins - 1) * SIZE_OCTAVES - SIZE_OCTAVES)


def _fourier_features(values: Tensor, frequencies: Tensor) -> Tensor:
    """Random Fourier features: Tancik et al., 2020, https://arxiv.org/abs/2006.10739."""
    angles = 2 * math.pi * values @ frequencies
    return torch.cat((torch.cos(angles), torch.sin(angles)), dim=-1)
