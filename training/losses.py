"""What the text decoder and the region heads get wrong about packed tasks.

Shapes: B pictures, T packed tokens, S prefix and packed tokens, P patches, D width, M supervised tokens.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.bins import coordinate_to_bin, size_to_bin
from training.packing import PADDING, SIZE, WORD, Packed, X, Y
from workflow_blocks.moondream2.config import TextConfig
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.text import Text, TextBlock, rotation_at

# The decoder layer, and how many of its heads, that are shown where to look.
GUIDED_LAYER = 2
GUIDED_HEADS = 2


def task_losses(
    model: Moondream2, image_embeddings: Tensor, cells: Tensor, packed: Packed, blur: float
) -> dict[str, Tensor]:
    """The weighted parts of a batch's loss, each a mean over the tokens that it concerns.

    Args:
        model: its text and region parts are run.
        image_embeddings: (B, P, D).
        cells: (B, P), the item that each patch of the global crop shows plus one, 0 for none.
        packed: the tasks.
        blur: standard deviation, in bins, of the target around the true bin.
    """
    text, config = model.text, model.config
    bos_ids = torch.full((len(image_embeddings), 1), config.tokenizer.bos_id, device=image_embeddings.device)
    prefix = torch.cat((text.embed(bos_ids), image_embeddings), dim=1)
    hidden, attention = decode_packed(text, embed_packed(model, packed), packed, text.read_prefix(prefix))

    asks_x, is_word = packed.asks == X, packed.asks == WORD
    has_object = packed.looks_at > 0
    wanted = torch.where(has_object[asks_x], config.tokenizer.coord_id, config.tokenizer.eos_id)
    words = packed.answers[is_word][:, 0].long()
    n_bins = config.region.coord_out_dim
    at_x, at_y, at_size = (asks_x & has_object), packed.asks == Y, packed.asks == SIZE
    size_bins = size_to_bin(packed.answers[at_size], config.region.size_out_dim // 2)
    x_bins, y_bins = (coordinate_to_bin(packed.answers[at][:, 0], n_bins) for at in (at_x, at_y))
    # A bin of the log scale is finer for all but the smallest objects.
    size_blur = 2 * blur * config.region.size_out_dim / (2 * n_bins)
    return {
        # One bit among thousands of bins: it needs the weight.
        "more": 4 * F.cross_entropy(text.logits(hidden[asks_x]), wanted),
        "words": 2 * F.cross_entropy(text.logits(hidden[is_word]), words),
        "x": _blurred_loss(model.region.coordinate_logits(hidden[at_x]), x_bins, blur),
        "y": _blurred_loss(model.region.coordinate_logits(hidden[at_y]), y_bins, blur),
        "size": _blurred_loss(model.region.size_logits(hidden[at_size]), size_bins, size_blur),
        "attention": attention_loss(attention, cells, packed),
    }


def embed_packed(model: Moondream2, packed: Packed) -> Tensor:
    """The packed tokens' embeddings (B, T, D)."""
    embeddings = model.text.embed(packed.tokens).clone()
    is_coordinate = (packed.kinds == X) | (packed.kinds == Y)
    is_size = packed.kinds == SIZE
    # Under autocast these are bfloat16.
    coordinates = model.region.encode_coordinate(packed.values[is_coordinate][:, 0])
    sizes = model.region.encode_size(packed.values[is_size])
    embeddings[is_coordinate], embeddings[is_size] = coordinates.to(embeddings), sizes.to(embeddings)
    return embeddings


def decode_packed(
    text: Text, embeddings: Tensor, packed: Packed, prefix: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, T, D), and the guided heads' attention to the prefix (B, heads, T, prefix).

    `prefix` holds each layer's queries, keys and values of the images (B, prefix, heads, d).
    """
    rotation = rotation_at(packed.positions, text.config)
    mask = _packed_mask(packed.task, prefix[0].shape[1])
    x, guided = embeddings, None
    for index, (block, seen) in enumerate(zip(text.blocks, prefix, strict=True)):
        assert isinstance(block, TextBlock)
        normed = block.ln(x)
        queries, keys, values = _split(block.heads(normed, rotation), text.config)
        _, seen_keys, seen_values = _split(seen, text.config)
        keys, values = torch.cat((seen_keys, keys), dim=2), torch.cat((seen_values, values), dim=2)
        scores = queries * text.config.head_dim**-0.5 @ keys.mT
        weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1).to(values.dtype)
        if index == GUIDED_LAYER:
            guided = weights[:, :GUIDED_HEADS, :, : seen.shape[1]]
        attended = weights @ values
        x = block.add(x, normed, attended.transpose(1, 2).flatten(2))
    assert guided is not None
    return x, guided


def _split(heads: Tensor, config: TextConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, heads, d) to queries, keys and values, each (B, its heads, T, d)."""
    counts = [config.n_heads, config.n_kv_heads, config.n_kv_heads]
    queries, keys, values = heads.transpose(1, 2).split(counts, dim=1)
    return queries, keys, values


def _packed_mask(task: Tensor, prefix_length: int) -> Tensor:
    """Who sees whom, (B, 1, T, S): the prefix, and what came before in the same task."""
    n_pictures, length = task.shape
    same = task.unsqueeze(2) == task.unsqueeze(1)
    causal = torch.ones(length, length, dtype=torch.bool, device=task.device).tril()
    prefix = torch.ones(n_pictures, length, prefix_length, dtype=torch.bool, device=task.device)
    return torch.cat((prefix, same & causal), dim=2).unsqueeze(1)


def _blurred_loss(logits: Tensor, bins: Tensor, blur: float) -> Tensor:
    """Cross-entropy (M, ..., bins) against a bell around the true bin (M, ...)."""
    if not len(logits):
        return logits.sum()
    centres = torch.arange(logits.shape[-1], device=logits.device)
    target = torch.softmax(-((centres - bins.unsqueeze(-1)) ** 2) / (2 * blur**2), dim=-1)
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(0, -2))


def attention_loss(attention: Tensor, cells: Tensor, packed: Packed) -> Tensor:
    """How little the guided heads look at the items that the answer is about, or at bos if there are none."""
    asking = (packed.asks != PADDING) & (packed.looks_at >= 0)
    picture = torch.arange(len(cells), device=cells.device).unsqueeze(1).expand_as(asking)[asking]
    looks_at = packed.looks_at[asking].unsqueeze(1)
    shown = cells[picture]
    is_meant = (shown > 0) & ((looks_at >> (shown - 1).clamp(min=0)) & 1 > 0)
    at_bos = looks_at == 0
    target = torch.cat((at_bos, is_meant), dim=1)
    can_look = target.any(dim=1)
    weights = attention.transpose(1, 2)[asking][can_look]  # (M, heads, prefix)
    looked = (weights * target[can_look].unsqueeze(1)).sum(dim=-1)
    return -torch.log(looked + 1e-6).mean()
