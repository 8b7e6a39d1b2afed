from threading import Thread

import numpy as np
import torch

from workflow_blocks.moondream2.image_cache import EncodedImageCache
from workflow_blocks.moondream2.rows import EncodedImage, KeyValues
from workflow_blocks.moondream2.runtime import Runtime


def encoded(n_bytes):
    half = torch.zeros(n_bytes // 8)
    return EncodedImage((KeyValues(half, half),))


def test_the_least_recently_used_image_goes_first():
    cache = EncodedImageCache(300)
    for key in (b"a", b"b", b"c"):
        cache.put(key, encoded(96))
    cache.get(b"a")

    cache.put(b"d", encoded(96))

    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key)] == [b"a", b"c", b"d"]
    assert cache.nbytes == 3 * 96


def test_an_image_larger_than_the_cache_is_not_kept():
    cache = EncodedImageCache(100)
    cache.put(b"small", encoded(96))

    cache.put(b"large", encoded(104))

    assert cache.get(b"large") is None
    assert cache.get(b"small") is not None


def test_adding_an_image_again_does_not_grow_the_file():
    cache = EncodedImageCache(1000)
    for _ in range(3):
        cache.put(b"a", encoded(96))

    assert cache.nbytes == 96


def test_threads_keep_the_count_right():
    cache = EncodedImageCache(960)

    def use(thread):
        for number in range(300):
            key = str((thread * number) % 23).encode()
            cache.get(key)
            cache.put(key, encoded(96))

    threads = [Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert cache.nbytes == sum(96 for key in range(23) if cache.get(str(key).encode())) <= 960


def test_a_detector_encodes_an_image_once(golden_detector):
    image, other = np.zeros((30, 40, 3), np.uint8), np.ones((30, 40, 3), np.uint8)
    detector = Runtime(golden_detector.model, golden_detector.tokenizer, cache_bytes=2**24)

    first, again, _ = detector.encode_images([image, image.copy(), other])
    (later,) = detector.encode_images([image.copy()])

    assert first is again is later
    assert detector.cache.nbytes == 2 * first.nbytes


def test_without_a_cache_nothing_is_kept(golden_detector):
    golden_detector.encode_images([np.zeros((30, 40, 3), np.uint8)])

    assert golden_detector.cache.nbytes == 0
