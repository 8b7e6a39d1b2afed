"""Random weights, for measuring sizes of the model whose weights are not at hand."""

import torch
from torch import Tensor

from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.model import Moondream2

_GAINS = ("ln.weight", "ln1.weight", "ln2.weight")


def random_weights(config: Moondream2Config, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights under the names of a published checkpoint. They keep activations of ordinary size.

    No text and no list of objects ever ends.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Moondream2(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(_GAINS):
            weight = torch.ones(shape, dtype=dtype)
        else:
            weight = torch.empty(shape, dtype=dtype).normal_(0, 0.5 * shape[-1] ** -0.5, generator=generator)
        weights[f"model.{name}"] = weight
    weights["model.text.lm_head.bias"][config.tokenizer.eos_id] = -1e4
    return weights
