from dataclasses import replace

import cv2
import numpy as np
import pytest

from training.batches import cells_of
from training.colours import COLOUR_WORDS, name_colour
from training.pictures import CROP_PICTURES, SCENE_PICTURES, draw_picture
from training.stickers import StickerOptions, make_sticker


@pytest.fixture(scope="module", params=[SCENE_PICTURES, CROP_PICTURES], ids=["scenes", "crops"])
def options(request):
    return request.param


@pytest.fixture(scope="module")
def pictures(drawings, options):
    rng = np.random.default_rng(5)
    return [draw_picture(rng, [drawings], options) for _ in range(30)]


def test_a_seed_gives_the_same_picture_again(drawings):
    first, second = (draw_picture(np.random.default_rng(3), [drawings]) for _ in range(2))

    np.testing.assert_array_equal(first.image, second.image)
    assert first.items == second.items


def test_boxes_enclose_what_can_be_seen(pictures):
    for picture in pictures:
        height, width = picture.item_map.shape
        assert picture.image.shape == (height, width, 3)
        for index, item in enumerate(picture.items):
            rows, cols = np.nonzero(picture.item_map == index + 1)
            seen = (
                cols.min() / width,
                rows.min() / height,
                (cols.max() + 1) / width,
                (rows.max() + 1) / height,
            )
            np.testing.assert_allclose(item.box, seen)


def test_pictures_mix_shapes_and_things_and_some_are_empty(drawings):
    rng = np.random.default_rng(0)
    items = [draw_picture(rng, [drawings], SCENE_PICTURES).items for _ in range(60)]

    assert {item.is_shape for part in items for item in part} == {True, False}
    assert min(len(part) for part in items) == 0
    assert max(len(part) for part in items) >= 5
    assert any(len(part) - len({item.name for item in part}) >= 2 for part in items)


def test_sizes_are_those_of_the_options(drawings):
    options = replace(SCENE_PICTURES, outside=0.0, max_items=1)
    rng = np.random.default_rng(1)
    sizes = []
    for _ in range(40):
        picture = draw_picture(rng, [drawings], options)
        height, width = picture.item_map.shape
        for item in picture.items:
            box = np.array(item.box) * (width, height, width, height)
            sizes.append(max(box[2] - box[0], box[3] - box[1]) / min(width, height))

    assert 0.09 < min(sizes) < 0.2
    assert 0.4 < max(sizes) < 0.65


def test_cells_show_the_items_where_they_are(pictures):
    for picture in pictures:
        cells = cells_of(picture)
        for index, item in enumerate(picture.items):
            x, y = (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2
            inside = np.argwhere(cells == index + 1) / len(cells)
            if len(inside):
                assert np.abs(inside - (y, x)).max() < 1
                assert (inside[:, 1] >= item.box[0] - 1 / len(cells)).all()
                assert (inside[:, 1] <= item.box[2]).all()


@pytest.mark.parametrize("size", [14, 60, 300])
def test_stickers_have_the_size_asked_for(drawings, size):
    rng = np.random.default_rng(2)
    for _ in range(10):
        sticker = make_sticker(rng, drawings["dog"][0], size)
        assert size * 0.8 - 2 <= max(sticker.shape[:2]) <= size * 1.1 + 3
        assert sticker.min() >= 0
        assert sticker.max() <= 255


def test_an_untouched_sticker_looks_like_its_drawing(drawings):
    plain = StickerOptions(max_turn=0, recoloured=0, tinted=0, shaded=0, max_stretch=1.0)
    sticker = make_sticker(np.random.default_rng(0), drawings["cat"][0], 100, plain)

    drawing = drawings["cat"][0][0]
    rows, cols = np.nonzero(drawing[..., 3] > 127)
    cut = drawing[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    expected = cv2.resize(cut, sticker.shape[1::-1], interpolation=cv2.INTER_AREA)
    either_way = [np.abs(image[..., 3] - sticker[..., 3]).mean() for image in (expected, expected[:, ::-1])]
    assert min(either_way) < 12


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((220, 20, 20), "red"), ((20, 160, 40), "green"), ((20, 60, 220), "blue"), ((250, 215, 20), "yellow"),
        ((250, 140, 10), "orange"), ((130, 30, 190), "purple"), ((255, 150, 200), "pink"),
        ((110, 60, 20), "brown"),
        ((10, 10, 10), "black"), ((252, 252, 252), "white"), ((130, 130, 130), "grey"),
    ],
)  # fmt: skip
def test_plain_colours_are_named(rgb, name):
    image = np.zeros((8, 8, 4), np.uint8)
    image[2:6, 2:6] = (*rgb, 255)

    assert name_colour(image) == (name, frozenset())


def test_half_and_half_is_doubtful():
    image = np.full((8, 8, 4), 255, np.uint8)
    image[:4, :, :3] = (220, 20, 20)

    colour, doubtful = name_colour(image)

    assert colour is None
    assert doubtful == {"red", "white"}
    assert doubtful <= set(COLOUR_WORDS)
