import numpy as np

from workflow_blocks.image_hash import image_hash


def test_images_that_differ_in_a_pixel_or_in_shape_have_different_hashes():
    image = np.zeros((4, 6, 3), np.uint8)
    other_pixel = image.copy()
    other_pixel[2, 3, 1] = 1

    hashes = {image_hash(it).digest() for it in (image, image.copy(), other_pixel, image.reshape(6, 4, 3))}

    assert len(hashes) == 3


def test_the_hash_does_not_depend_on_the_layout_in_memory():
    mirrored = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[:, ::-1]

    assert image_hash(mirrored).digest() == image_hash(np.ascontiguousarray(mirrored)).digest()


def test_the_hash_is_that_of_datasets_written_by_earlier_releases():
    assert image_hash(np.zeros((2, 2, 3), np.uint8)).hexdigest()[:8] == "93d26e15"
