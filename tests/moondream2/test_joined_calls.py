"""Calls of several threads that become one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np
import pytest

from training.scenes import draw_scene
from workflow_blocks.bundled_model import demo_model_folder
from workflow_blocks.moondream2 import joined_calls
from workflow_blocks.moondream2.joined_calls import JoinedCalls
from workflow_blocks.moondream2.runtime import Query, Runtime

N_THREADS = 6
LARGE = 8


class Door:
    """Squares numbers. The first call waits until the others have come."""

    def __init__(self, joined):
        self.joined = joined
        self.runs = []
        self.is_open = threading.Event()
        self.has_begun = threading.Event()

    def square(self, numbers):
        self.runs.append(list(numbers))
        self.has_begun.set()
        assert self.is_open.wait(30)
        if any(number < 0 for number in numbers):
            raise ValueError(f"negative: {min(numbers)}")
        return [number**2 for number in numbers]

    def call_all(self, calls, kind=lambda numbers: "square", most=None):
        """The results or errors of calls of threads that all wait for a first one."""

        def call(numbers):
            try:
                return self.joined(kind(numbers), numbers, self.square, most)
            except ValueError as error:
                return str(error)

        with ThreadPoolExecutor(len(calls) + 1) as pool:
            first = pool.submit(call, [0])
            assert self.has_begun.wait(30)
            others = []
            for number, numbers in enumerate(calls, 1):
                others.append(pool.submit(call, numbers))
                while len(self.joined._waiting) < number:
                    pass
            self.is_open.set()
            assert first.result(30) == [0]
            return [other.result(30) for other in others]


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """No call loses it on a busy machine, unless a test says so."""
    monkeypatch.setattr(joined_calls, "_LEAST_PATIENCE_SECONDS", 60)


@pytest.fixture
def door():
    return Door(JoinedCalls(LARGE))


def test_calls_that_wait_become_one_and_each_gets_its_own_results(door):
    results = door.call_all([[1, 2], [3], [4, 5, 6]])

    assert results == [[1, 4], [9], [16, 25, 36]]
    assert [sorted(run) for run in door.runs] == [[0], [1, 2, 3, 4, 5, 6]]


def test_an_error_is_that_of_its_own_call_alone(door):
    results = door.call_all([[1], [-2], [3], [-4]])

    assert results == [[1], "negative: -2", [9], "negative: -4"]


def test_calls_of_other_kinds_are_not_joined(door):
    results = door.call_all([[1], [2], [3]], kind=lambda numbers: numbers[0] % 2)

    assert results == [[1], [4], [9]]
    assert sorted(sorted(run) for run in door.runs[1:]) == [[1, 3], [2]]


def test_a_joined_call_has_at_most_so_many_items_unless_one_call_has_more(door):
    results = door.call_all([[1, 2], [3], [4], [5, 6, 7, 8]], most=3)

    assert results == [[1, 4], [9], [16], [25, 36, 49, 64]]
    assert max(len(run) for run in door.runs if 5 not in run) <= 3
    assert [5, 6, 7, 8] in door.runs


def run_beside(joined, items, blocked=lambda: [-1]):
    """Runs a call while another one does not end; also what the other one gave."""
    has_begun, may_end = threading.Event(), threading.Event()

    def wait(items):
        has_begun.set()
        assert may_end.wait(30)
        return items

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(joined, "a", blocked(), wait)
        assert has_begun.wait(30)
        results = joined("a", items, lambda items: [item * 2 for item in items])
        may_end.set()
        return results, first.result(30)


def test_a_small_call_does_not_wait_for_a_large_one_nor_a_large_one_for_a_small_one():
    large = list(range(LARGE))

    assert run_beside(JoinedCalls(LARGE), [1], lambda: large) == ([2], large)
    assert run_beside(JoinedCalls(LARGE), large) == ([2 * item for item in large], [-1])


def test_calls_do_not_wait_long_for_one_that_takes_longer_than_usual(monkeypatch):
    monkeypatch.setattr(joined_calls, "_LEAST_PATIENCE_SECONDS", 0.05)

    assert run_beside(JoinedCalls(LARGE), [1, 2]) == ([2, 4], [-1])


def test_too_few_results_are_an_error_for_each_call(door):
    def drop(numbers):
        return door.square(numbers)[1:]

    door.is_open.set()
    with pytest.raises(RuntimeError, match="1 items have 0 results"):
        door.joined("a", [1], drop)


def test_calls_that_were_joined_to_an_interrupted_one_run_alone(door):
    def interrupt(numbers):
        if len(numbers) > 1:
            raise SystemExit
        return door.square(numbers)

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(door.joined, "a", [number], interrupt) for number in range(4)]
        assert door.has_begun.wait(30)
        while len(door.joined._waiting) < 3:
            pass
        door.is_open.set()
        outcomes = [call.exception(30) or call.result() for call in calls]

    # One thread ran the joined call, and was itself interrupted.
    assert sum(isinstance(outcome, SystemExit) for outcome in outcomes) == 1
    assert [o for n, o in enumerate(outcomes) if o != [n**2] and not isinstance(o, SystemExit)] == []


def test_calls_go_on_after_one_that_was_interrupted():
    joined = JoinedCalls(LARGE)

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        joined("a", [1], interrupt)

    assert joined("a", [2], lambda items: [item * 2 for item in items]) == [4]
    assert not joined._waiting


def test_calls_that_are_not_joined_run_at_once_and_alone():
    door = Door(JoinedCalls(LARGE, are_joined=False))
    door.is_open.set()

    assert door.joined("square", [1, 2], door.square) == [1, 4]
    assert door.joined("square", [], door.square) == []
    assert door.runs == [[1, 2], []]


def test_prompts_on_an_encoded_image_do_not_wait_for_other_images(monkeypatch):
    runtime = Runtime.from_folder(demo_model_folder(), cache_bytes=2**26)
    first, second = (draw_scene(number).image for number in range(2))
    expected = runtime.detect([Query(*runtime.encode_images([first]), "star")])
    has_begun, may_end, encode = threading.Event(), threading.Event(), runtime._encode

    def wait(images, are_bgr):
        has_begun.set()
        assert may_end.wait(30)
        return encode(images, are_bgr)

    monkeypatch.setattr(runtime, "_encode", wait)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(runtime.encode_images, [second])
        assert has_begun.wait(30)
        found = runtime.detect([Query(*runtime.encode_images([first]), "star")])
        may_end.set()
        other.result(30)

    assert found == expected


@pytest.mark.parametrize("cache_bytes", [0, 2**26])
def test_threads_get_the_same_objects_as_one_by_one(cache_bytes, monkeypatch):
    runtime = Runtime.from_folder(demo_model_folder(), cache_bytes=cache_bytes)
    images = [draw_scene(number).image for number in range(N_THREADS)] * 2
    prompts = ["red circle", "star", "square"]
    alone = Runtime.from_folder(demo_model_folder(), join_calls=False)

    def detect(runtime, image, prompt):
        (encoded,) = runtime.encode_images([image])
        return runtime.detect([Query(encoded, prompt)])[0]

    expected = [[detect(alone, image, prompt) for prompt in prompts] for image in images]
    encoded, encode = [], runtime._encode
    monkeypatch.setattr(
        runtime, "_encode", lambda images, are_bgr: encoded.append(len(images)) or encode(images, are_bgr)
    )

    with ThreadPoolExecutor(2 * N_THREADS) as pool:
        found = list(pool.map(lambda image: [detect(runtime, image, prompt) for prompt in prompts], images))

    assert sum(map(len, expected[0]))
    for ours, theirs in zip(found, expected, strict=True):
        for objects, expected_objects in zip(ours, theirs, strict=True):
            assert len(objects) == len(expected_objects)
            for one, other in zip(objects, expected_objects, strict=True):
                np.testing.assert_allclose(astuple(one), astuple(other), atol=1e-3)
    if cache_bytes:
        assert sum(encoded) == N_THREADS
