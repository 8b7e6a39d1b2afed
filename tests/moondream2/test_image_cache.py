from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

import numpy as np
import pytest
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


def test_adding_an_image_again_does_not_grow_the_cache():
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


def at_once(cache, encode, *orders):
    """Asks for images in an order of its own in each thread, all at the same time."""
    barrier = Barrier(len(orders))

    def ask(keys):
        barrier.wait()
        return cache.get_or_encode({key: key for key in keys}, encode)

    with ThreadPoolExecutor(len(orders)) as threads:
        return [threads.submit(ask, keys) for keys in orders]


@pytest.mark.parametrize("max_bytes", [1000, 96, 1], ids=["all fit", "one fits", "none fits"])
def test_threads_that_ask_at_the_same_time_encode_an_image_once(max_bytes):
    all_wait, calls = Barrier(3), []

    def encode(keys):
        calls.extend(keys)
        all_wait.wait(timeout=10)
        return [encoded(96) for _ in keys]

    asked = at_once(EncodedImageCache(max_bytes), encode, [b"a", b"b"], [b"b", b"a"], [b"a", b"b"])

    first, *others = (future.result() for future in asked)
    assert sorted(calls) == [b"a", b"b"]
    for other in others:
        assert {key: id(image) for key, image in other.items()} == {key: id(first[key]) for key in other}


def test_an_image_that_cannot_be_encoded_fails_for_all_who_wait_and_is_tried_again_later():
    cache, both_wait = EncodedImageCache(1000), Barrier(2)

    def fail(keys):
        both_wait.wait(timeout=10)
        if keys:
            raise MemoryError("too large")
        return []

    for future in at_once(cache, fail, [b"a"], [b"a"]):
        with pytest.raises(MemoryError, match="too large"):
            future.result()

    assert set(cache.get_or_encode({b"a": 0}, lambda images: [encoded(96) for _ in images])) == {b"a"}


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
