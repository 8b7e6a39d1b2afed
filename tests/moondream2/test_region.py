import math

import pytest
import torch

from workflow_blocks.moondream2.region import (
    coordinate_from_bin,
    coordinate_to_bin,
    size_from_bin,
    size_to_bin,
)


def test_coordinates_go_from_bin_and_back():
    bins = torch.arange(1024)

    torch.testing.assert_close(coordinate_to_bin(coordinate_from_bin(bins, 1024), 1024), bins.float())


def test_sizes_go_from_bin_and_back():
    bins = torch.arange(1024)

    torch.testing.assert_close(size_to_bin(size_from_bin(bins, 1024), 1024), bins.float(), atol=1e-3, rtol=0)


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
    region = golden_detector.model.region
    hidden = torch.rand(128)

    torch.testing.assert_close(region.size_logits(hidden).flatten(), region.size_decoder(hidden))
