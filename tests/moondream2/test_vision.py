import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from workflow_blocks.moondream2.image_crops import Tiling, image_to_crops
from workflow_blocks.moondream2.vision import _stitch, _to_patches


@pytest.mark.parametrize(("index", "name"), [(0, "0_300x200"), (3, "3_1200x500")])
def test_image_embeddings_match_the_reference(golden_folder, golden_detector, index, name):
    vision = golden_detector.model.vision
    expected = load_file(golden_folder / "expected_intermediates.safetensors")[f"{index}.img_emb"]
    image = np.asarray(Image.open(golden_folder / "images" / f"{name}.png").convert("RGB"))
    crops, tiling = image_to_crops(image, vision.config)

    with torch.inference_mode():
        embeddings = vision.project(vision.encode_crops(torch.from_numpy(crops)), tiling)

    torch.testing.assert_close(embeddings, expected, rtol=0, atol=1e-4)


def test_patches_go_row_by_row_with_values_by_channel_then_row_then_column():
    pixels = torch.arange(4 * 4 * 3).view(1, 4, 4, 3)

    patches = _to_patches(pixels, 2)

    assert patches.shape == (1, 4, 12)
    second = pixels[0, 0:2, 2:4]
    torch.testing.assert_close(patches[0, 1], second.permute(2, 0, 1).flatten())


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 3), (2, 2), (3, 4)])
def test_stitching_puts_each_inner_part_where_it_was_cut(rows, cols):
    grid, margin = 10, 2
    window = grid - 2 * margin
    whole = torch.rand(rows * window + 2 * margin, cols * window + 2 * margin, 3)
    grids = torch.stack(
        [
            whole[row * window : row * window + grid, col * window : col * window + grid]
            for row in range(rows)
            for col in range(cols)
        ]
    )

    torch.testing.assert_close(_stitch(grids, Tiling(rows, cols), margin), whole)
