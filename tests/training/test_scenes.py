import numpy as np
import pytest

from training.scenes import COLOURS, SHAPES, draw_scene


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(seed) for seed in range(3_000_000, 3_000_040)]


def test_a_seed_gives_the_same_scene_again():
    first, second = draw_scene(5), draw_scene(5)

    np.testing.assert_array_equal(first.image, second.image)
    assert first.objects == second.objects


def test_images_have_the_stated_sizes(scenes):
    for scene in scenes:
        height, width, _ = scene.image.shape
        assert 200 <= min(height, width) <= 960
        assert max(height, width) <= 1280


def test_objects_are_inside_the_image_and_have_the_stated_sizes(scenes):
    assert {item.colour for scene in scenes for item in scene.objects} == set(COLOURS)
    assert {item.shape for scene in scenes for item in scene.objects} == set(SHAPES)
    for scene in scenes:
        height, width, _ = scene.image.shape
        for item in scene.objects:
            x_min, y_min, x_max, y_max = item.xyxy
            assert 0 <= x_min < x_max <= width
            assert 0 <= y_min < y_max <= height
            longer = max(x_max - x_min, y_max - y_min) / min(height, width)
            assert 0.1 <= longer <= 0.46  # what another object hides makes a box smaller


def test_boxes_enclose_the_visible_part(scenes):
    for scene in scenes:
        for index, item in enumerate(scene.objects):
            rows, cols = np.nonzero(scene.object_map == index + 1)
            seen = (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
            np.testing.assert_allclose(item.xyxy, seen, atol=2)


def test_some_scenes_are_empty_and_some_are_full(scenes):
    counts = [len(scene.objects) for scene in scenes]

    assert min(counts) == 0
    assert max(counts) >= 5
