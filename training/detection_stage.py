"""Second stage: the decoder learns to detect, on what the encoder sees.

Several prompts of one image are packed into one sequence: all see the image prefix, none sees another,
and positions restart after the prefix for each. Objects come from left to right, so that 'which next'
has one answer.

Shapes: B scenes, T packed prompt tokens, S prefix and prompt tokens, D width, M supervised tokens.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from training.bins import coordinate_to_bin, size_to_bin
from training.prompts import Question, random_question, random_wording
from training.scene_store import COLOUR_NAMES
from training.scenes import SHAPES, SceneObject
from workflow_blocks.moondream2.config import Moondream2Config, TextConfig
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.prompt_tokens import Prompts
from workflow_blocks.moondream2.text import Text, TextBlock, rotation_at

PROMPTS_PER_SCENE = 8

# The decoder layer, and how many of its heads, that are shown where to look.
GUIDED_LAYER = 2
GUIDED_HEADS = 2

# What a packed token is.
TOKEN, X, Y, SIZE, PADDING = range(5)


# Kind, token, values (2), prompt, position, asks, answers (2), looks_at: see `Packed`.
PackedToken = tuple[int, int, float, float, int, int, int, float, float, int]


@dataclass
class Packed:
    """Packed prompts of a batch of scenes; all but `tokens` and `kinds` speak of true objects."""

    kinds: Tensor  # (B, T): TOKEN, X, Y, SIZE or PADDING
    tokens: Tensor  # (B, T): ids where the kind is TOKEN
    values: Tensor  # (B, T, 2): the coordinate (first value) or size that the token embeds
    prompt: Tensor  # (B, T): which prompt of its scene a token belongs to
    positions: Tensor  # (B, T)
    asks: Tensor  # (B, T): what the token must tell: X (or the end), Y, SIZE; PADDING for nothing
    answers: Tensor  # (B, T, 2): true x, y or size
    looks_at: Tensor  # (B, T): object that the answer is about, -1 for none


def scene_objects(rows: np.ndarray) -> tuple[SceneObject, ...]:
    """A shard's object rows as scene objects with relative boxes."""
    return tuple(
        SceneObject(COLOUR_NAMES[int(row[0])], SHAPES[int(row[1])], _corners(row[2:])) for row in rows
    )


def _corners(row: np.ndarray) -> tuple[float, float, float, float]:
    x_min, y_min, x_max, y_max = (float(value) for value in row)
    return x_min, y_min, x_max, y_max


def pack_scene(
    rng: np.random.Generator, objects: tuple[SceneObject, ...], tokenizer: Tokenizer, config: Moondream2Config
) -> list[PackedToken]:
    """Random prompts about one scene, as packed tokens."""
    prompts = Prompts(config, tokenizer)
    packed = []
    asked: set[Question] = set()
    for prompt in range(PROMPTS_PER_SCENE):
        question = random_question(rng, objects)
        if question in asked and not question.impossible:
            question = random_question(rng, objects)
        asked.add(question)
        ids = prompts.detect(random_wording(rng, question)).ids
        found = sorted(
            (index for index, item in enumerate(objects) if question.matches(item)),
            key=lambda index: objects[index].xyxy[0] + objects[index].xyxy[2],
        )
        entries = [(TOKEN, token, 0.0, 0.0, PADDING, 0.0, 0.0, -1) for token in ids]
        for index in found:
            x_min, y_min, x_max, y_max = objects[index].xyxy
            x, y, w, h = (x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min
            entries[-1] = (*entries[-1][:4], X, x, 0.0, index)
            entries.append((X, 0, _noisy(rng, x), 0.0, Y, y, 0.0, index))
            entries.append((Y, 0, _noisy(rng, y), 0.0, SIZE, w, h, index))
            entries.append((SIZE, 0, _noisy(rng, w), _noisy(rng, h), PADDING, 0.0, 0.0, -1))
        entries[-1] = (*entries[-1][:4], X, -1.0, 0.0, -1)
        for offset, (kind, token, first, second, asks, a, b, looks) in enumerate(entries):
            position = config.prefix_length + offset
            packed.append((kind, token, first, second, prompt, position, asks, a, b, looks))
    return packed


def _noisy(rng: np.random.Generator, value: float) -> float:
    """Half of the time a little off, as the model's own answers will be."""
    if rng.random() < 0.5:
        return value
    return float(np.clip(value + rng.normal(0, 0.008), 0.001, 0.999))


def pack(scenes: list[list[PackedToken]]) -> Packed:
    length = max(len(scene) for scene in scenes)
    padding = (PADDING, 0, 0.0, 0.0, -1, 0, PADDING, 0.0, 0.0, -1)
    table = torch.tensor([scene + [padding] * (length - len(scene)) for scene in scenes], dtype=torch.float64)
    kinds, tokens, prompt, positions, asks, looks = (table[..., i].long() for i in (0, 1, 4, 5, 6, 9))
    return Packed(
        kinds, tokens, table[..., 2:4].float(), prompt, positions, asks, table[..., 7:9].float(), looks
    )


def detection_losses(
    model: Moondream2, image_embeddings: Tensor, cells: Tensor, packed: Packed, blur: float
) -> dict[str, Tensor]:
    """The weighted parts of a batch's loss, each a mean over the tokens that it concerns.

    Args:
        model: its text and region parts are run.
        image_embeddings: (B, P, D).
        cells: (B, P), the object that each patch of the global crop shows plus one, 0 for none.
        packed: the prompts.
        blur: standard deviation, in bins, of the target around the true bin.
    """
    text, config = model.text, model.config
    n_scenes = len(image_embeddings)
    bos = text.embed(torch.full((n_scenes, 1), config.tokenizer.bos_id))
    prefix = torch.cat((bos, image_embeddings), dim=1)
    hidden, attention = _decode_packed(text, _embed(model, packed), packed, text.read_prefix(prefix))

    asks_x = packed.asks == X
    has_object = packed.looks_at >= 0
    wanted = torch.where(has_object[asks_x], config.tokenizer.coord_id, config.tokenizer.eos_id)
    more = F.cross_entropy(text.logits(hidden[asks_x]), wanted)
    n_bins = config.region.coord_out_dim
    at_x, at_y, at_size = (asks_x & has_object), packed.asks == Y, packed.asks == SIZE
    x_logits = model.region.coordinate_logits(hidden[at_x])
    y_logits = model.region.coordinate_logits(hidden[at_y])
    size_logits = model.region.size_logits(hidden[at_size])
    size_bins = size_to_bin(packed.answers[at_size], config.region.size_out_dim // 2)
    return {
        # One bit among thousands of bins: it needs the weight.
        "more": 4 * more,
        "x": _blurred_loss(x_logits, coordinate_to_bin(packed.answers[at_x][:, 0], n_bins), blur),
        "y": _blurred_loss(y_logits, coordinate_to_bin(packed.answers[at_y][:, 0], n_bins), blur),
        # A bin of the log scale is finer for all but the smallest objects.
        "size": _blurred_loss(size_logits, size_bins, 2 * blur),
        "attention": _attention_loss(attention, cells, packed),
    }


def _embed(model: Moondream2, packed: Packed) -> Tensor:
    """The packed tokens' embeddings (B, T, D)."""
    embeddings = model.text.embed(packed.tokens)
    is_coordinate = (packed.kinds == X) | (packed.kinds == Y)
    is_size = packed.kinds == SIZE
    embeddings = embeddings.clone()
    embeddings[is_coordinate] = model.region.encode_coordinate(packed.values[is_coordinate][:, 0])
    embeddings[is_size] = model.region.encode_size(packed.values[is_size])
    return embeddings


def _decode_packed(
    text: Text, embeddings: Tensor, packed: Packed, prefix: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Hidden states (B, T, D), and the guided heads' attention to the prefix (B, heads, T, prefix).

    `prefix` holds each layer's queries, keys and values of the images (B, prefix, heads, d).
    """
    rotation = rotation_at(packed.positions, text.config)
    mask = _packed_mask(packed.prompt, prefix[0].shape[1])
    x, guided = embeddings, None
    for index, (block, seen) in enumerate(zip(text.blocks, prefix, strict=True)):
        assert isinstance(block, TextBlock)
        normed = block.ln(x)
        queries, keys, values = _split(block.heads(normed, rotation), text.config)
        _, seen_keys, seen_values = _split(seen, text.config)
        keys, values = torch.cat((seen_keys, keys), dim=2), torch.cat((seen_values, values), dim=2)
        # The guided heads do the same with the attention weights at hand.
        n_guided = GUIDED_HEADS if index == GUIDED_LAYER else 0
        attended = F.scaled_dot_product_attention(
            queries[:, n_guided:], keys[:, n_guided:], values[:, n_guided:], mask
        )
        if n_guided:
            scores = queries[:, :n_guided] @ keys[:, :n_guided].mT / math.sqrt(text.config.head_dim)
            weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
            guided = weights[..., : seen.shape[1]]
            attended = torch.cat((weights @ values[:, :n_guided], attended), dim=1)
        x = block.add(x, normed, attended.transpose(1, 2).flatten(2))
    assert guided is not None
    return x, guided


def _split(heads: Tensor, config: TextConfig) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, heads, d) to queries, keys and values, each (B, its heads, T, d)."""
    counts = [config.n_heads, config.n_kv_heads, config.n_kv_heads]
    queries, keys, values = heads.transpose(1, 2).split(counts, dim=1)
    return queries, keys, values


def _packed_mask(prompt: Tensor, prefix_length: int) -> Tensor:
    """Who sees whom, (B, 1, T, S): the prefix, and what came before in the same prompt."""
    n_scenes, length = prompt.shape
    same = prompt.unsqueeze(2) == prompt.unsqueeze(1)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    prefix = torch.ones(n_scenes, length, prefix_length, dtype=torch.bool)
    return torch.cat((prefix, same & causal), dim=2).unsqueeze(1)


def _blurred_loss(logits: Tensor, bins: Tensor, blur: float) -> Tensor:
    """Cross-entropy (M, ..., bins) against a bell around the true bin (M, ...)."""
    centres = torch.arange(logits.shape[-1])
    target = torch.softmax(-((centres - bins.unsqueeze(-1)) ** 2) / (2 * blur**2), dim=-1)
    return F.cross_entropy(logits.flatten(0, -2), target.flatten(0, -2))


def _attention_loss(attention: Tensor, cells: Tensor, packed: Packed) -> Tensor:
    """How little the guided heads look at the object that the answer is about, or at bos for the end."""
    asking = packed.asks != PADDING
    scene = torch.arange(len(cells)).unsqueeze(1).expand_as(asking)[asking]
    looks_at = packed.looks_at[asking].unsqueeze(1)
    shown = cells[scene] == looks_at + 1
    at_object = torch.cat((torch.zeros_like(looks_at, dtype=torch.bool), shown), dim=1)
    at_bos = torch.zeros_like(at_object)
    at_bos[:, 0] = True
    target = torch.where(looks_at >= 0, at_object, at_bos)
    can_look = target.any(dim=1)
    weights = attention.transpose(1, 2)[asking][can_look]  # (M, heads, prefix)
    looked = (weights * target[can_look].unsqueeze(1)).sum(dim=-1)
    return -torch.log(looked + 1e-6).mean()
