"""Rows that advance together: pairs of image and prompt, decoded in one batch until each has ended.

Shapes: B rows, T tokens, D text width.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.prompt_tokens import PromptTokens
from workflow_blocks.moondream2.rows import EncodedImage, Rows

_Result = TypeVar("_Result")


class Request(NamedTuple):
    """A prompt and the image that it is about."""

    image: EncodedImage
    prompt: PromptTokens


class Decoding:
    """The rows of one batch while they are decoded; a row that has ended is dropped."""

    def __init__(self, model: Moondream2, requests: Sequence[Request]) -> None:
        """Reads the prompts. Requests about one image must lie side by side."""
        self.model = model
        self.device = model.text.wte.device
        self._rows, self.hidden = read_prompts(model, requests)
        # `hidden` are the decoder's states of each remaining row's last token, (B, D).
        # Which of the requests each remaining row is, (B,).
        self.places = torch.arange(len(requests), device=self.device)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def n_tokens(self) -> int:
        """How many tokens each row holds, padding included."""
        return self._rows.length

    def logits(self, rows: Tensor | None = None) -> Tensor:
        """Logits of each row's next token, or of some rows', float32 (B, vocab)."""
        return self.model.text.logits(self.hidden if rows is None else self.hidden[rows]).float()

    def logits_of(self, token_ids: Sequence[int]) -> Tensor:
        """Logits of some tokens as each row's next, float32 (B, N)."""
        return self.model.text.logits_of(self.hidden, token_ids).float()

    def read(self, embeddings: Tensor) -> None:
        """Reads the next token of each row, (B, D)."""
        self.hidden = self.model.text(embeddings.unsqueeze(1), self._rows)[:, -1]

    def keep(self, stay: Tensor) -> None:
        """Drops all rows but those of the given indices, ascending, on the CPU."""
        if len(stay) == len(self.places):
            return
        self.places, self.hidden = self.places[stay], self.hidden[stay]
        if len(stay):
            self._rows.keep(stay)


def read_prompts(model: Moondream2, requests: Sequence[Request]) -> tuple[Rows, Tensor]:
    """Starts a row for each request and reads its prompt. Requests about one image must lie side by side.

    Returns:
        The rows, and the decoder's states of their last tokens (B, D).
    """
    prompts = [prompt for _, prompt in requests]
    per_image = [list(same) for _, same in groupby(requests, key=lambda request: id(request.image))]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.text.wte.device)
    prefixes = [same[0].image.prefix for same in per_image]
    rows = Rows(model.config.text, prefixes, [len(same) for same in per_image], lengths)
    return rows, model.text(_embed(model, prompts), rows, only_last=True)[:, -1]


def _embed(model: Moondream2, prompts: Sequence[PromptTokens]) -> Tensor:
    """Prompts, padded on the left, to embeddings (B, T, D)."""
    device = model.text.wte.device
    padding = [max(map(len, prompts)) - len(prompt) for prompt in prompts]
    ids = [[0] * pad + list(prompt.ids) for pad, prompt in zip(padding, prompts, strict=True)]
    embeddings = model.text.embed(torch.tensor(ids, device=device))
    rows = list(enumerate(zip(padding, prompts, strict=True)))
    coordinates = [(row, pad + place, x) for row, (pad, prompt) in rows for place, x in prompt.coordinates]
    sizes = [(row, pad + place, w, h) for row, (pad, prompt) in rows for place, w, h in prompt.sizes]
    if coordinates:
        of_rows, places, values = zip(*coordinates, strict=True)
        encoded = model.region.encode_coordinate(torch.tensor(values, device=device))
        embeddings[list(of_rows), list(places)] = encoded
    if sizes:
        of_rows, places, widths, heights = zip(*sizes, strict=True)
        encoded = model.region.encode_size(torch.tensor([widths, heights], device=device).T)
        embeddings[list(of_rows), list(places)] = encoded
    return embeddings


class Batcher:
    """Decodes any number of requests, in batches that fit the working memory."""

    def __init__(self, model: Moondream2, memory: WorkingMemory) -> None:
        self.model = model
        self.memory = memory
        self._itemsize = model.text.wte.itemsize

    def decode(
        self, requests: Sequence[Request], steps: int, decode: Callable[[Decoding], Sequence[_Result]]
    ) -> list[_Result]:
        """Runs `decode` on batches of requests.

        Args:
            requests: in any order; those about one image are put side by side.
            steps: the most tokens that a row takes after its prompt.
            decode: decodes a batch and returns a result for each of its requests, in their order.

        Returns:
            The results in the order of the requests.
        """
        results: dict[int, _Result] = {}
        for batch in self.batches(requests, steps):
            found = decode(Decoding(self.model, [requests[place] for place in batch]))
            results.update(zip(batch, found, strict=True))
        return [results[place] for place in range(len(requests))]

    def rows_that_fit(self, n_tokens: int) -> int:
        """How many rows of so many tokens fit the working memory, at least 1."""
        return self.memory.rows_at_once(self.model.config, self._itemsize, n_tokens)

    def batches(self, requests: Sequence[Request], steps: int) -> list[list[int]]:
        """Splits requests into batches, as indices: one image's side by side, among them like lengths."""
        first_of_image: dict[int, int] = {}
        for place, (image, _) in enumerate(requests):
            first_of_image.setdefault(id(image), place)

        def order_key(place: int) -> tuple[int, int]:
            image, prompt = requests[place]
            return first_of_image[id(image)], len(prompt)

        order = sorted(range(len(requests)), key=order_key)
        lengths = [len(requests[place].prompt) for place in order]
        groups = self.memory.group_rows(self.model.config, self._itemsize, lengths, steps)
        return [[order[index] for index in group] for group in groups]
