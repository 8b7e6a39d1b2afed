"""Sequences that are decoded together, each of which continues an image's prefix.

The keys and values of a prefix are stored once, for all rows that continue it. A row stores those of its own
tokens only.

Shapes: B rows, T new tokens, S own tokens (earlier and new), P prefix tokens, H heads, K key and value
heads, d head width. Heads come first wherever rows are multiplied, so that all rows of an image are one
matrix product with its prefix.
"""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workflow_blocks.moondream2.config import TextConfig

# Memory for own tokens is allocated for this many more at a time.
ROOM_STEP = 32


class KeyValues(NamedTuple):
    """The keys and values of a prefix in one layer, each (K, P, d)."""

    keys: Tensor
    values: Tensor

    @classmethod
    def of(cls, heads: Tensor, n_kv_heads: int) -> "KeyValues":
        """Takes the keys and values out of (P, H + 2 * K, d)."""
        keys, values = heads[:, -2 * n_kv_heads :].transpose(0, 1).contiguous().chunk(2)
        return cls(keys, values)


# One for each layer.
Prefix = Sequence[KeyValues]


class EncodedImage:
    """An image as the decoder attends to it: each layer's keys and values of the image prefix, (K, P, d).

    `encoder` stands for the model that encoded it, which alone can use it. `encoded_at` is a time of
    `time.perf_counter`.
    """

    def __init__(self, prefix: tuple[KeyValues, ...], encoder: object = None) -> None:
        self.prefix = prefix
        self.encoder = encoder
        self.encoded_at = time.perf_counter()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for layer in self.prefix for tensor in layer)


class Rows:
    """The rows of one or several images.

    Rows of one image lie side by side. Shorter rows are padded on the left, so that all take their next
    token at the same place.
    """

    def __init__(
        self, config: TextConfig, prefixes: Sequence[Prefix], rows_of_prefix: Sequence[int], lengths: Tensor
    ) -> None:
        """Starts rows that have no token of their own yet.

        Args:
            config: the decoder's sizes.
            prefixes: the encoded images.
            rows_of_prefix: how many rows continue each prefix.
            lengths: int64 (B,), how many tokens each row will start with.
        """
        self._config = config
        self._prefixes = list(prefixes)
        self._rows_of_prefix = list(rows_of_prefix)
        self._prefix_length = prefixes[0][0].keys.shape[1]
        self._padding = lengths.max() - lengths  # (B,)
        self._is_padded = bool(self._padding.any())
        self._start = self._length = 0
        # Each layer's own keys and values, (2, K, places, room, d). Rows that are dropped leave empty places
        # until it is worth copying the others; `_places` (B,) then tells where these are.
        self._places: Tensor | None = None
        no_room = (2, config.n_kv_heads, len(lengths), 0, config.head_dim)
        self._own = [prefixes[0][0].keys.new_empty(no_room) for _ in range(config.n_layers)]
        self._unseen: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the rows' own tokens."""
        return sum(own.nbytes for own in self._own)

    @property
    def length(self) -> int:
        """Tokens of each row, padding included."""
        return self._length

    def extend(self, count: int) -> Tensor:
        """Makes room for `count` tokens a row, and gives their positions (B, count).

        Each new token sees its image's prefix and, of its own row, what came before it and itself.
        """
        self._start, self._length = self._length, self._length + count
        if self._length > self._own[0].shape[3]:
            self._grow(math.ceil(self._length / ROOM_STEP) * ROOM_STEP)
        places = torch.arange(self._length, device=self._padding.device)
        new = places[self._start :]
        self._unseen = None
        if self._is_padded or count > 1:
            unseen = (places > new[:, None]) | (places < self._padding[:, None, None])  # (B, T, S)
            self._unseen = unseen.repeat(1, self._config.n_heads // self._config.n_kv_heads, 1)
        return self._prefix_length + new - self._padding[:, None]

    def attend(self, layer: int, heads: Tensor, only_last: bool = False) -> Tensor:
        """Stores the new tokens' keys and values, and attends with their queries.

        Args:
            layer: which layer's.
            heads: queries, keys and values (B, T, H + 2 * K, d).
            only_last: whether only the last token of each row attends.

        Returns:
            What the queries attend to, (B, T, H * d), or (B, 1, H * d) of the last token.
        """
        n_rows, count, _, width = heads.shape
        n_heads, n_kv = self._config.n_heads, self._config.n_kv_heads
        own = self._own[layer]
        new = heads[:, :, n_heads:].unflatten(2, (2, n_kv)).permute(2, 3, 0, 1, 4)
        places = slice(None) if self._places is None else self._places
        own[:, :, places, self._start : self._length] = new
        own_keys, own_values = own[:, :, :, : self._length].unbind()

        unseen = self._unseen
        if only_last:
            heads = heads[:, -1:]
            unseen = None if unseen is None else unseen[:, count - 1 :: count]
            count = 1
        # Query heads that share keys are taken as more tokens: (K, B, N = H / K * T, d).
        queries = heads[:, :, :n_heads] * width**-0.5
        queries = queries.view(n_rows, count, n_kv, -1, width).permute(2, 0, 3, 1, 4)
        queries = queries.reshape(n_kv, n_rows, -1, width)
        own_scores = self._times_own(queries, own_keys.mT)
        if unseen is not None:
            own_scores = own_scores.masked_fill(unseen, -math.inf)
        prefix_scores = self._times_prefix(queries, [prefix[layer].keys.mT for prefix in self._prefixes])
        weights = torch.cat((prefix_scores, own_scores), dim=-1).softmax(dim=-1, dtype=torch.float32)
        weights = weights.to(heads.dtype)
        attended = self._times_prefix(
            weights[..., : self._prefix_length], [prefix[layer].values for prefix in self._prefixes]
        )
        attended = attended + self._times_own(weights[..., self._prefix_length :], own_values)
        attended = attended.view(n_kv, n_rows, -1, count, width).permute(1, 3, 0, 2, 4)
        return attended.reshape(n_rows, count, n_heads * width)

    def keep(self, rows: Tensor) -> None:
        """Drops all rows but those of the given indices, ascending, on the CPU."""
        ends = torch.tensor(self._rows_of_prefix).cumsum(0)
        counts = torch.bincount(torch.bucketize(rows, ends, right=True), minlength=len(ends)).tolist()
        rows = rows.to(self._padding.device)
        self._prefixes = [prefix for prefix, count in zip(self._prefixes, counts, strict=True) if count]
        self._rows_of_prefix = [count for count in counts if count]
        self._padding = self._padding[rows]
        self._places = rows if self._places is None else self._places[rows]
        if 2 * len(rows) <= self._own[0].shape[2]:
            self._put_own_at(self._places)

    def repeat(self, counts: Sequence[int]) -> None:
        """Makes of each row that many equal ones, side by side."""
        of_rows = iter(counts)
        self._rows_of_prefix = [sum(next(of_rows) for _ in range(n_rows)) for n_rows in self._rows_of_prefix]
        repeats = torch.tensor(counts, device=self._padding.device)
        self._padding = self._padding.repeat_interleave(repeats)
        places = torch.arange(len(counts), device=repeats.device) if self._places is None else self._places
        self._put_own_at(places.repeat_interleave(repeats))

    def _put_own_at(self, places: Tensor) -> None:
        """Copies each row's own keys and values from its place in `places` (B,), and leaves none empty."""
        for layer, own in enumerate(self._own):
            self._own[layer] = own[:, :, places]
        self._places = None

    def _times_own(self, factors: Tensor, own: Tensor) -> Tensor:
        """Multiplies each row of `factors` (K, B, N, x) by the matrix (K, places, x, y) at its place."""
        if self._places is None:
            return factors @ own
        with_empty = factors.new_zeros((factors.shape[0], own.shape[1], *factors.shape[2:]))
        with_empty[:, self._places] = factors
        return (with_empty @ own)[:, self._places]

    def _times_prefix(self, factors: Tensor, of_prefixes: Sequence[Tensor]) -> Tensor:
        """Multiplies each row of `factors` (K, B, N, x) by its image's matrix (K, x, y).

        All rows of an image form one matrix product, so that its prefix is read once.
        """
        products = [
            torch.bmm(rows.flatten(1, 2), matrix).view(*rows.shape[:3], -1)
            for rows, matrix in zip(
                factors.split_with_sizes(self._rows_of_prefix, dim=1), of_prefixes, strict=True
            )
        ]
        return products[0] if len(products) == 1 else torch.cat(products, dim=1)

    def _grow(self, room: int) -> None:
        """Makes room for so many own tokens of each row, and for no row that was dropped."""
        places = slice(None) if self._places is None else self._places
        self._places = None
        for layer, old in enumerate(own[:, :, places] for own in self._own):
            new = old.new_zeros((*old.shape[:3], room, old.shape[4]))
            new[:, :, :, : old.shape[3]] = old
            self._own[layer] = new
