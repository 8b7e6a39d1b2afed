"""The vision encoder: crops to image embeddings.

Shapes: N crops, S crop size in pixels, P patches of a crop (grid x grid), C encoder width,
D text width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workflow_blocks.moondream2.config import VisionConfig
from workflow_blocks.moondream2.image_crops import Tiling
from workflow_blocks.moondream2.layers import LAYER_NORM_EPS, Attention, Linear, Mlp


class VisionBlock(nn.Module):
    """A pre-norm transformer block without mask."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        dim = config.enc_dim
        self.ln1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, config.enc_n_heads, config.enc_n_heads)
        self.ln2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, config.enc_ff_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Vision(nn.Module):
    """Encodes crops, and projects their features to embeddings of the text decoder's width."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        patch_values = config.in_channels * config.enc_patch_size**2
        self.patch_emb = Linear(patch_values, config.enc_dim)
        self.pos_emb = nn.Parameter(torch.empty(1, config.n_patches, config.enc_dim))
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.enc_n_layers))
        self.post_ln = nn.LayerNorm(config.enc_dim, eps=LAYER_NORM_EPS)
        self.proj_mlp = Mlp(2 * config.enc_dim, config.proj_inner_dim, config.proj_out_dim)

    def encode_crops(self, crops: Tensor) -> Tensor:
        """uint8 RGB crops (N, S, S, 3) to patch features (N, P, C)."""
        pixels = _to_patches(crops, self.config.enc_patch_size).to(self.pos_emb.dtype)
        pixels = pixels.div_(255).sub_(0.5).div_(0.5)
        x: Tensor = self.patch_emb(pixels) + self.pos_emb
        for block in self.blocks:
            x = block(x)
        return self.post_ln(x)

    def project(self, features: Tensor, tiling: Tiling) -> Tensor:
        """The features of one image's crops (1 + rows * cols, P, C) to its embeddings (P, D)."""
        return self.proj_mlp(self.join(features, tiling))

    def join(self, features: Tensor, tiling: Tiling) -> Tensor:
        """Global and local features of each patch of the image side by side, (P, 2 * C)."""
        return torch.cat((features[0], self._pool_local(features[1:], tiling)), dim=-1)

    def _pool_local(self, features: Tensor, tiling: Tiling) -> Tensor:
        """Local crops (rows * cols, P, C) to one grid as large as the global crop's, (P, C)."""
        grid = self.config.grid
        stitched = _stitch(features.unflatten(1, (grid, grid)), tiling, self.config.overlap_margin)
        channels_first = stitched.permute(2, 0, 1)
        if features.device.type == "mps":
            # Releases of PyTorch before 2026 pool there only to sizes that divide the input's: https://github.com/pytorch/pytorch/issues/143864
            channels_first = channels_first.cpu()
        pooled = F.adaptive_avg_pool2d(channels_first, output_size=(grid, grid)).to(features.device)
        return pooled.flatten(1).transpose(0, 1)


def _to_patches(pixels: Tensor, patch_size: int) -> Tensor:
    """(N, S, S, 3) to (N, P, 3 * patch_size ** 2): patches row by row, values by channel, y, x."""
    n, size, _, channels = pixels.shape
    grid = size // patch_size
    patches = pixels.view(n, grid, patch_size, grid, patch_size, channels)
    return patches.permute(0, 1, 3, 5, 2, 4).reshape(n, grid * grid, channels * patch_size**2)


def _stitch(grids: Tensor, tiling: Tiling, margin: int) -> Tensor:
    """Local grids (rows * cols, grid, grid, C) to (rows * w + 2 * margin, cols * w + 2 * margin, C).

    Every crop gives its inner part of w = grid - 2 * margin patches, and its margin where it has no
    neighbour.
    """
    grid = grids.shape[1]

    def kept(index: int, count: int) -> slice:
        return slice(margin if index > 0 else 0, grid - margin if index < count - 1 else grid)

    rows = [
        torch.cat(
            [
                grids[row * tiling.cols + col, kept(row, tiling.rows), kept(col, tiling.cols)]
                for col in range(tiling.cols)
            ],
            dim=1,
        )
        for row in range(tiling.rows)
    ]
    return torch.cat(rows, dim=0)
