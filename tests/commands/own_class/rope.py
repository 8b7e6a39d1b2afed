"""Inference's own class computes rotary positions with this."""

import torch


def precompute_freqs_cis(dim, end):
    return torch.zeros(end, dim, 2)
