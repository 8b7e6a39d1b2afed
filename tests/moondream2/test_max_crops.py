import numpy as np
import pytest

from workflow_blocks.moondream2.config import VisionConfig
from workflow_blocks.moondream2.image_crops import image_to_crops, select_tiling, tiling_of
from workflow_blocks.moondream2.runtime import Runtime

SIZES = [(300, 200), (800, 600), (720, 1280), (1000, 30), (60, 4000), (3000, 400), (378, 378)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("most", [1, 2, 3, 4, 7])
def test_an_image_is_never_cut_into_more_crops_than_allowed(size, most):
    tiling = image_to_crops(np.zeros((*size, 3), np.uint8), VisionConfig(), most).tiling

    assert tiling.rows * tiling.cols <= most
    assert min(tiling) >= 1


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("most", [None, 12, 13, 100])
def test_a_ceiling_above_the_models_own_changes_nothing(size, most):
    cut = image_to_crops(np.zeros((*size, 3), np.uint8), VisionConfig(), most)

    assert cut.tiling == select_tiling(*size, VisionConfig())


@pytest.mark.parametrize("size", [(400, 10000), (10000, 400), (1000, 60000), (379, 100000)], ids=str)
@pytest.mark.parametrize("most", [4, 12, 13, 100])
def test_a_strip_has_no_more_crops_than_asked_for(size, most):
    tiling = tiling_of(*size, VisionConfig(), most)

    assert select_tiling(*size, VisionConfig()).rows * select_tiling(*size, VisionConfig()).cols > 12
    assert 1 < tiling.rows * tiling.cols <= min(most, 12)


def test_encoded_images_of_one_crop_are_of_the_whole_image_alone(golden_package, monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    encoded = []
    runtime = Runtime.from_folder(golden_package, max_crops=1)
    encode = runtime.model.vision.encode_crops
    monkeypatch.setattr(
        runtime.model.vision, "encode_crops", lambda crops: encoded.append(len(crops)) or encode(crops)
    )

    runtime.encode_images([image])

    assert runtime.max_crops == 1
    assert encoded == [1]


@pytest.mark.parametrize(("most", "own"), [(1, 1), (4, 4), (12, 12), (60, 12), (None, 12)])
def test_a_model_with_fewer_crops_uses_its_own(golden_package, most, own):
    assert Runtime.from_folder(golden_package, max_crops=most).max_crops == own
