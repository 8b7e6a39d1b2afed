"""Scores given answers rather than writing one.

Shapes: B rows, T tokens, N scored tokens.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from tokenizers import Tokenizer
from torch import Tensor

from workflow_blocks.moondream2.decoding import Batcher, Request, read_prompts
from workflow_blocks.moondream2.prompt_tokens import PromptError, PromptTokens, check_text, shown

MAX_CHOICES = 256
# Tokens whose logits are computed together.
_SCORED_AT_ONCE = 256


@dataclass(frozen=True)
class ScoredChoice:
    """A given answer, its log probability as the whole answer, and its probability among the choices."""

    text: str
    log_probability: float
    probability: float


def check_choices(choices: Sequence[str], name: str = "choices") -> None:
    """Checks that there are at least two different choices, all texts that are not blank.

    Args:
        choices: the choices of one question.
        name: what the caller calls them.

    Raises:
        PromptError: they are not.
    """
    if not isinstance(choices, (list, tuple)):
        raise PromptError(
            f"the {name} of a question are a {type(choices).__name__}, {shown(choices)}; give a list of at "
            "least two"
        )
    if len(choices) < 2:
        raise PromptError(f"the {name} of a question are {shown(choices)}; give at least two")
    if len(choices) > MAX_CHOICES:
        raise PromptError(f"{len(choices)} {name} are given; at most {MAX_CHOICES} are taken")
    for choice in choices:
        check_text(f"one of the {name}", choice)
    ((most_frequent, count),) = Counter(choice.strip() for choice in choices).most_common(1)
    if count > 1:
        raise PromptError(f"the {name} hold {shown(most_frequent)} more than once; give different ones")


class ChoiceScorer:
    """Scores the choices of many questions, all of them in one batch if memory allows."""

    def __init__(self, batcher: Batcher, tokenizer: Tokenizer) -> None:
        self._batcher = batcher
        self._tokenizer = tokenizer
        self._ids = batcher.model.config.tokenizer

    def score(
        self, requests: Sequence[Request], choices_of_requests: Sequence[Sequence[str]]
    ) -> list[list[ScoredChoice]]:
        """Scores each request's choices; a choice counts with and without a space before it, added up."""
        spellings = [
            (place, choice, spelling)
            for place, choices in enumerate(choices_of_requests)
            for choice in choices
            for spelling in self._spellings(choice)
        ]
        scores = self.log_probabilities(
            [requests[place] for place, _, _ in spellings], [spelling for _, _, spelling in spellings]
        )
        sums: dict[tuple[int, str], float] = {}
        for (place, choice, _), score in zip(spellings, scores, strict=True):
            sums[place, choice] = _log_of_sum([sums.get((place, choice), -math.inf), score])
        return [
            _normalised({choice: sums[place, choice] for choice in choices})
            for place, choices in enumerate(choices_of_requests)
        ]

    def _spellings(self, choice: str) -> list[str]:
        """With and without a space before it, unless the tokenizer reads both alike."""
        choice = choice.strip()
        with_space = f" {choice}"
        is_same = self._tokenizer.encode(choice).ids == self._tokenizer.encode(with_space).ids
        return [choice] if is_same else [choice, with_space]

    def longest(self, prompt: PromptTokens, choice: str) -> PromptTokens:
        """A prompt with the longer spelling of a choice."""
        ids = max((self._tokenizer.encode(spelling).ids for spelling in self._spellings(choice)), key=len)
        return prompt.with_tokens(ids)

    def log_probabilities(self, requests: Sequence[Request], texts: Sequence[str]) -> list[float]:
        """The log probability of each text, with its end, as the whole answer to its request."""
        ids_of_texts = [self._tokenizer.encode(text).ids for text in texts]
        results = [0.0] * len(requests)
        for batch in self._batcher.batches(requests, steps=max(map(len, ids_of_texts), default=0)):
            scores = self._score_batch(
                [requests[place] for place in batch], [ids_of_texts[place] for place in batch]
            )
            for place, score in zip(batch, scores, strict=True):
                results[place] = score
        return results

    def _score_batch(self, requests: list[Request], ids_of_rows: list[list[int]]) -> list[float]:
        """The log probability of each row's tokens, and of the end after them.

        Equal requests side by side are read once, and their texts continue them.
        """
        different = [(request, len(list(same))) for request, same in groupby(requests)]
        counts = [count for _, count in different]
        model = self._batcher.model
        rows, last = read_prompts(model, [request for request, _ in different])
        rows.repeat(counts)
        last = last.repeat_interleave(torch.tensor(counts, device=last.device), dim=0)
        after = model.text(model.text.embed(self._padded(ids_of_rows)), rows)  # (B, T, D)
        # A token is predicted by the state before it.
        lengths = [len(ids) + 1 for ids in ids_of_rows]
        predicting = torch.cat((last.unsqueeze(1), after), dim=1)  # (B, T + 1, D)
        predicting = torch.cat(
            [of_row[:length] for of_row, length in zip(predicting, lengths, strict=True)]
        )  # (N, D)
        wanted = torch.tensor([token for ids in ids_of_rows for token in (*ids, self._ids.eos_id)])
        is_first = torch.tensor([place == 0 for length in lengths for place in range(length)])
        scores = torch.cat(
            [
                self._log_probabilities(*part)
                for part in zip(
                    predicting.split(_SCORED_AT_ONCE),
                    wanted.to(predicting.device).split(_SCORED_AT_ONCE),
                    is_first.to(predicting.device).split(_SCORED_AT_ONCE),
                    strict=True,
                )
            ]
        )
        return [float(of_row.sum()) for of_row in scores.split(lengths)]

    def _padded(self, ids_of_rows: list[list[int]]) -> Tensor:
        """Token ids (B, T), padded on the right, where no token of a row sees the padding."""
        longest = max(map(len, ids_of_rows))
        return torch.tensor(
            [[*ids, *[self._ids.eos_id] * (longest - len(ids))] for ids in ids_of_rows],
            device=self._batcher.model.text.wte.device,
        )

    def _log_probabilities(self, states: Tensor, wanted: Tensor, is_first: Tensor) -> Tensor:
        """Of the wanted tokens (N,), each predicted by a state (N, D)."""
        logits = self._batcher.model.text.logits(states).float()
        # As when an answer is written: after its first token, the token that starts an answer is excluded.
        logits[~is_first, self._ids.answer_id] = -math.inf
        return logits.log_softmax(dim=-1).gather(1, wanted[:, None]).squeeze(1).double()


def _normalised(log_probabilities: dict[str, float]) -> list[ScoredChoice]:
    total = _log_of_sum(list(log_probabilities.values()))
    return [ScoredChoice(text, value, math.exp(value - total)) for text, value in log_probabilities.items()]


def _log_of_sum(values: Sequence[float]) -> float:
    """The logarithm of the sum of exponentials."""
    highest = max(values)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
