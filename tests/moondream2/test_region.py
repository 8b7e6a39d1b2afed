import math

import pytest
import torch

from workflow_blocks.moondream2.region import (
    choose_coordinates,
    choose_sizes,
    probability_near,
    size_from_bin,
)


@pytest.mark.parametrize(("index", "size"), [(0, 2.0**-10), (1023, 1.0)])
def test_sizes_span_ten_octaves(index, size):
    assert math.isclose(float(size_from_bin(torch.tensor(index), 1024)), size, rel_tol=1e-6)


def test_embeddings_and_logits_have_the_shapes_that_are_stated(golden_detector):
    region = golden_detector.model.region

    assert region.encode_coordinate(torch.rand(5)).shape == (5, 128)
    assert region.encode_size(torch.rand(5, 2)).shape == (5, 128)
    assert region.coordinate_logits(torch.rand(5, 128)).shape == (5, 1024)
    assert region.size_logits(torch.rand(5, 128)).shape == (5, 2, 1024)


def test_width_comes_before_height(golden_detector):
    """The decoder's first 1024 logits are of the width, the others of the height."""
    region = golden_detector.model.region
    torch.manual_seed(0)
    hidden = torch.rand(1, 128)
    logits = region.size_decoder(hidden)[0]

    width, height = choose_sizes(region.size_logits(hidden))

    expected = [size_from_bin(half.argmax(), 1024).item() for half in (logits[:1024], logits[1024:])]
    assert expected[0] != expected[1]
    assert [width.value.item(), height.value.item()] == pytest.approx(expected)


def logits(*shares):
    """Logits (1, 1024) of which each (bin, probability) has its share; other bins have none."""
    values = torch.full((1, 1024), -1e9)
    for index, probability in shares:
        values[0, index] = math.log(probability)
    return values


def sizes(width, height):
    return choose_sizes(torch.stack((width, height), dim=1))


def test_the_most_likely_bins_are_chosen():
    x = choose_coordinates(logits((100, 0.3), (512, 0.7)))
    w, h = sizes(logits((1023, 1.0)), logits((0, 0.6), (7, 0.4)))

    assert x.value.item() == 0.5
    assert (w.value.item(), h.value.item()) == (1.0, 2**-10)


@pytest.mark.parametrize(
    ("x", "w", "expected"),
    [
        pytest.param([(512, 1.0)], [(900, 1.0)], 1.0, id="sure"),
        pytest.param([(512, 0.4), (513, 0.3), (511, 0.3)], [(900, 1.0)], 1.0, id="neighbouring places"),
        pytest.param([(512, 1.0)], [(900, 0.5), (905, 0.5)], 1.0, id="neighbouring sizes"),
        pytest.param([(512, 0.6), (100, 0.4)], [(900, 1.0)], 0.6, id="two places"),
        pytest.param([(512, 1.0)], [(900, 0.7), (600, 0.3)], 0.7, id="two sizes"),
        pytest.param([(512, 0.6), (100, 0.4)], [(900, 0.7), (600, 0.3)], 0.42, id="both"),
        pytest.param(
            [(512, 0.6), (520, 0.4)], [(300, 1.0)], 0.6, id="near for a large box, far for a small one"
        ),
        # A box as wide as the image: a fifth of it is 204.8 bins. A fifth less of a size is 32.9 bins.
        pytest.param([(512, 0.6), (716, 0.4)], [(1023, 1.0)], 1.0, id="a fifth of the size away"),
        pytest.param([(512, 0.6), (717, 0.4)], [(1023, 1.0)], 0.6, id="more than a fifth of it away"),
        pytest.param([(512, 1.0)], [(900, 0.6), (868, 0.4)], 1.0, id="a fifth smaller"),
        pytest.param([(512, 1.0)], [(900, 0.6), (867, 0.4)], 0.6, id="more than a fifth smaller"),
        pytest.param([(512, 1.0)], [(867, 0.6), (900, 0.4)], 0.6, id="a fifth smaller than the other"),
    ],
)
def test_probability_near_adds_up_near_bins(x, w, expected):
    width, _ = sizes(logits(*w), logits((0, 1.0)))

    near = probability_near(choose_coordinates(logits(*x)), width)

    assert near.item() == pytest.approx(expected, abs=1e-5)


def test_the_mean_near_the_peak_leaves_far_bins_out():
    x = choose_coordinates(logits((500, 0.4), (502, 0.3), (900, 0.3)))

    assert x.mean_near(8).item() == pytest.approx((0.4 * 500 + 0.3 * 502) / 0.7 / 1024)
    assert x.mean_near(0).item() == pytest.approx(500 / 1024)
