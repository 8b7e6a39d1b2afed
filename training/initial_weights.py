"""Starting weights that save the first hours: what a network would learn first anyway."""

import math

import torch
from torch import Tensor, nn

from workflow_blocks.moondream2.config import VisionConfig
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.text import TextBlock
from workflow_blocks.moondream2.vision import Vision, VisionBlock


def initialise_vision(vision: Vision) -> None:
    """Patches start as low-frequency cosine coefficients, positions as sines of row and column."""
    with torch.no_grad():
        vision.patch_emb.weight.copy_(_cosine_filters(vision.config))
        vision.patch_emb.bias.zero_()
        vision.pos_emb.copy_(_grid_waves(vision.config.grid, vision.config.enc_dim))
        _quieten_blocks(vision)


def initialise_decoder(model: Moondream2) -> None:
    """Embeddings of ordinary size, and fixed frequencies for coordinates and sizes."""
    generator = torch.Generator().manual_seed(7)
    region = model.region
    with torch.no_grad():
        nn.init.normal_(model.text.wte, std=0.3, generator=generator)
        region.coord_features.copy_(2 ** torch.linspace(-2, 6, region.coord_features.shape[1]).unsqueeze(0))
        region.size_features.copy_(4 * torch.randn(region.size_features.shape, generator=generator))
        _quieten_blocks(model.text)
    region.coord_features.requires_grad_(False)
    region.size_features.requires_grad_(False)


def _quieten_blocks(part: nn.Module) -> None:
    """Halves what each block adds at first."""
    for block in part.modules():
        if isinstance(block, (VisionBlock, TextBlock)):
            block.attn.proj.weight.mul_(0.5)
            block.mlp.fc2.weight.mul_(0.5)


def _cosine_filters(config: VisionConfig) -> Tensor:
    """(C, 3 * patch ** 2): about half of the filters read brightness, a quarter each of two colour axes.

    Each is scaled up by its frequency, as images have less of the high ones.
    """
    patch, dim = config.enc_patch_size, config.enc_dim
    axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]])
    of_brightness = min(dim - 2 * (dim // 4), patch**2)
    of_colour = (dim - of_brightness) // 2
    filters = []
    for axis, count in zip(axes, (dim - 2 * of_colour, of_colour, of_colour), strict=True):
        ordered = sorted(
            ((u, v) for u in range(patch) for v in range(patch)), key=lambda uv: (math.hypot(*uv), uv)
        )
        for u, v in ordered[:count]:
            wave = _cosine(v, patch).unsqueeze(1) * _cosine(u, patch).unsqueeze(0)
            wave = wave / wave.norm() * (1 + 1.5 * math.hypot(u, v)) / (0.75 * patch)
            filters.append((axis / axis.norm()).view(3, 1, 1) * wave)
    return torch.stack(filters).flatten(1)


def _cosine(frequency: int, length: int) -> Tensor:
    return torch.cos(math.pi * frequency * (torch.arange(length) + 0.5) / length)


def _grid_waves(grid: int, dim: int) -> Tensor:
    """Sines and cosines of row and column at several wavelengths, (1, grid ** 2, dim)."""
    frequencies = torch.logspace(math.log10(0.5), math.log10(grid / 2), dim // 4)
    angles = 2 * math.pi * (torch.arange(grid).unsqueeze(1) + 0.5) / grid * frequencies / 2
    waves = torch.cat((angles.sin(), angles.cos()), dim=1)  # (grid, dim / 2)
    rows = waves.unsqueeze(1).expand(grid, grid, -1)
    cols = waves.unsqueeze(0).expand(grid, grid, -1)
    return 0.5 * torch.cat((rows, cols), dim=-1).reshape(1, grid * grid, dim)
