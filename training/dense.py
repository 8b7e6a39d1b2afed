"""Training-only heads that tell what each patch shows, and their loss.

They teach the encoder in minutes what the text decoder's losses need hours for. A patch's name is found by
comparing it with the embeddings of the words for each name, which teaches those words what they look like.

Shapes: N crops, g patches along a crop's side, P patches of a crop, D text width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from training.colours import COLOUR_WORDS
from training.names import NAMES
from training.pictures import MAX_ITEMS, Item
from training.words import wordings_of

BACKGROUND = len(NAMES)
NO_COLOUR = -1
# Of each item: name, colour, box.
ITEM_VALUES = 6


class DenseHead(nn.Module):
    """Patch features (..., C) to logits of name (background last) and colour, and a box."""

    def __init__(self, dim: int, text_dim: int) -> None:
        super().__init__()
        self.compare = nn.Linear(dim, text_dim)
        self.bias = nn.Parameter(torch.zeros(len(NAMES)))
        self.others = nn.Linear(dim, 1 + len(COLOUR_WORDS) + 4)

    def forward(self, features: Tensor, words: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`words` (names, D) embeds a word for each name."""
        names = self.compare(features) @ words.T + self.bias
        background, colours, boxes = self.others(features).split((1, len(COLOUR_WORDS), 4), dim=-1)
        return torch.cat((names, background), dim=-1), colours, boxes


class WordTable:
    """The tokens of every wording of every name, to pick one at random for each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ids = [
            [tokenizer.encode(word).ids for pair in wordings_of(name) for word in pair] for name in NAMES
        ]
        self._longest = max(len(ids) for wordings in self._ids for ids in wordings)

    def pick(self, rng: np.random.Generator) -> Tensor:
        """Token ids (names, longest), -1 where a wording has fewer tokens."""
        picked = torch.full((len(NAMES), self._longest), -1)
        for row, wordings in zip(picked, self._ids, strict=True):
            ids = wordings[0] if rng.random() < 0.4 else wordings[int(rng.integers(len(wordings)))]
            row[: len(ids)] = torch.tensor(ids)
        return picked


def embed_words(picked: Tensor, embeddings: Tensor) -> Tensor:
    """The mean embedding of each wording's tokens: (names, longest) and (vocab, D) to (names, D)."""
    given = (picked >= 0).unsqueeze(-1)
    return (F.embedding(picked.clamp(min=0), embeddings) * given).sum(dim=1) / given.sum(dim=1)


def item_table(items: tuple[Item, ...]) -> np.ndarray:
    """(MAX_ITEMS, ITEM_VALUES)."""
    table = np.zeros((MAX_ITEMS, ITEM_VALUES), np.float32)
    for row, item in zip(table, items, strict=False):
        colour = NO_COLOUR if item.colour is None else COLOUR_WORDS.index(item.colour)
        row[:] = (NAMES.index(item.name), colour, *item.box)
    return table


@dataclass
class DenseTargets:
    """What the dense head should say of each patch (N, P)."""

    shown: Tensor
    names: Tensor
    colours: Tensor
    boxes: Tensor  # (N, P, 4)

    @classmethod
    def of(cls, cells: Tensor, items: Tensor, absolute: bool) -> "DenseTargets":
        """Cells (N, g, g) and item tables (N, MAX_ITEMS, ITEM_VALUES).

        A box's centre is told from the patch's own centre, or with `absolute` from the crop's.
        """
        grid = cells.shape[-1]
        index = cells.flatten(1).long()
        shown = index > 0
        chosen = items.gather(1, (index - 1).clamp(min=0).unsqueeze(-1).expand(-1, -1, ITEM_VALUES))
        centres = (torch.arange(grid, device=cells.device) + 0.5) / grid
        patch_xy = torch.stack((centres.repeat(grid), centres.repeat_interleave(grid)), dim=-1)
        corners = chosen[..., 2:].unflatten(-1, (2, 2))
        size = (corners[..., 1, :] - corners[..., 0, :]).clamp(min=0.02)
        offset = (corners.mean(dim=2) - (0.5 if absolute else patch_xy)) * (grid / 2)
        return cls(
            shown=shown,
            names=torch.where(shown, chosen[..., 0].long(), BACKGROUND),
            colours=torch.where(shown, chosen[..., 1].long(), NO_COLOUR),
            boxes=torch.cat((offset, torch.log2(size)), dim=-1),
        )


def dense_loss(predicted: tuple[Tensor, Tensor, Tensor], targets: DenseTargets) -> Tensor:
    """Cross-entropy of names, background and objects weighing the same, and of colours; and box error."""
    names, colours, boxes = predicted
    shown = targets.shown
    share = torch.where(shown, 1 / shown.sum().clamp(min=1), 1 / (~shown).sum().clamp(min=1)).flatten()
    errors = F.cross_entropy(names.flatten(0, 1), targets.names.flatten(), reduction="none")
    coloured = targets.colours >= 0
    colour_error = F.cross_entropy(colours[coloured], targets.colours[coloured], reduction="sum")
    box_error = F.smooth_l1_loss(boxes[shown], targets.boxes[shown], beta=0.02, reduction="sum")
    return (
        (errors * share).sum()
        + 0.5 * colour_error / coloured.sum().clamp(min=1)
        + box_error / shown.sum().clamp(min=1)
    )
