import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from workflow_blocks.moondream2.config import Moondream2Config, VisionConfig
from workflow_blocks.moondream2.image_crops import image_to_crops, images_to_crops, select_tiling


@pytest.mark.parametrize(
    ("height", "width", "tiling"),
    [
        pytest.param(378, 378, (1, 1), id="one crop"),
        pytest.param(379, 379, (3, 3), id="a pixel more than one crop"),
        pytest.param(600, 800, (2, 4), id="800 x 600"),
        pytest.param(500, 1200, (2, 5), id="wide"),
        pytest.param(1500, 2000, (3, 4), id="large"),
        pytest.param(30, 1000, (1, 1), id="flat"),
        pytest.param(1, 1, (1, 1), id="one pixel"),
        pytest.param(379, 100000, (1, 47), id="very long: more than max_crops, as in the reference"),
    ],
)
def test_select_tiling(height, width, tiling):
    chosen = select_tiling(height, width, VisionConfig())

    assert chosen == tiling


@pytest.mark.parametrize("max_crops", [1, 2, 5, 6, 12])
def test_select_tiling_keeps_to_the_limit_unless_the_image_is_a_strip(max_crops):
    config = VisionConfig(max_crops=max_crops)
    rng = np.random.default_rng(0)

    for height, width in rng.integers(1, 5000, (300, 2)):
        rows, cols = select_tiling(int(height), int(width), config)
        assert rows >= 1
        assert cols >= 1
        assert rows * cols <= max_crops or 1 in (rows, cols)


@pytest.mark.parametrize(("index", "name"), [(0, "0_300x200"), (3, "3_1200x500")])
def test_crops_match_the_reference(golden_folder, index, name):
    config = Moondream2Config.from_file(golden_folder / "config.json").vision
    expected = load_file(golden_folder / "expected_intermediates.safetensors")
    image = np.asarray(Image.open(golden_folder / "images" / f"{name}.png").convert("RGB"))

    crops, tiling = image_to_crops(image, config)

    assert tiling == tuple(expected[f"{index}.tiling"])
    assert len(crops) == 1 + tiling.rows * tiling.cols
    np.testing.assert_array_equal(crops[-1].transpose(2, 0, 1), expected[f"{index}.crop_last"])


def test_first_crop_shows_the_whole_image():
    image = np.zeros((400, 800, 3), np.uint8)
    image[:, 400:] = (255, 0, 0)

    crops, _ = image_to_crops(image, VisionConfig())

    assert (crops[0][:, :180] == 0).all()
    assert (crops[0][:, 198:] == (255, 0, 0)).all()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((0, 10, 3), np.uint8), id="no pixels"),
        pytest.param(np.zeros((10, 10), np.uint8), id="grey"),
        pytest.param(np.zeros((10, 10, 4), np.uint8), id="alpha"),
        pytest.param(np.zeros((10, 10, 3), np.float32), id="float"),
    ],
)
def test_image_to_crops_refuses_other_arrays(image):
    with pytest.raises(ValueError, match="uint8 array of shape"):
        image_to_crops(image, VisionConfig())


def test_images_are_cropped_together_as_one_by_one(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (60 * n, 90, 3), np.uint8) for n in range(1, 12)]

    for together, image in zip(images_to_crops(images, VisionConfig()), images, strict=True):
        alone = image_to_crops(image, VisionConfig())
        assert together.tiling == alone.tiling
        np.testing.assert_array_equal(together.crops, alone.crops)
