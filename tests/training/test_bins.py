import torch

from training.bins import coordinate_to_bin, size_to_bin
from workflow_blocks.moondream2.region import coordinate_from_bin, size_from_bin


def test_coordinates_go_from_bin_and_back():
    bins = torch.arange(1024)

    torch.testing.assert_close(coordinate_to_bin(coordinate_from_bin(bins, 1024), 1024), bins.float())


def test_sizes_go_from_bin_and_back():
    bins = torch.arange(1024)

    torch.testing.assert_close(size_to_bin(size_from_bin(bins, 1024), 1024), bins.float(), atol=1e-3, rtol=0)
