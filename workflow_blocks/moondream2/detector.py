"""Detection: encode an image once, then decode any number of prompts on it.

Shapes: T tokens, D text width. Coordinates are relative to the image, 0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from workflow_blocks.moondream2.image_crops import UInt8Array, image_to_crops
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.region import coordinate_from_bin, size_from_bin
from workflow_blocks.moondream2.text import KeyValues

DEFAULT_MAX_OBJECTS = 50
# Decoder steps that make one object: x, y, size.
STEPS_PER_OBJECT = 3


@dataclass(frozen=True)
class DetectedObject:
    """One object as the model told it; a box may stick out of the image.

    `p_object` is the probability that there was another object, `p_x` and so on those of the chosen bins.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    p_object: float
    p_x: float
    p_y: float
    p_w: float
    p_h: float

    @property
    def confidence(self) -> float:
        """How sure the model is of the object, 0 to 1."""
        return self.p_object


@dataclass(frozen=True)
class EncodedImage:
    """What the decoder keeps of an image: each layer's keys and values of the image prefix."""

    prefix: tuple[KeyValues, ...]


class PromptTooLongError(ValueError):
    """A prompt has more tokens than the model can read."""


class Detector:
    """Runs a loaded model. It holds no state of its own, so threads may share it."""

    def __init__(self, model: Moondream2, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._config = model.config
        self._device = model.text.wte.device

    @torch.inference_mode()
    def encode_image(self, image_rgb: UInt8Array) -> EncodedImage:
        """Encodes a uint8 RGB image (H, W, 3)."""
        crops, tiling = image_to_crops(image_rgb, self._config.vision)
        features = self.model.vision.encode_crops(torch.from_numpy(crops).to(self._device))
        image_embeddings = self.model.vision.project(features, tiling)
        bos = self._embed_tokens([self._config.tokenizer.bos_id])
        embeddings = torch.cat((bos, image_embeddings)).unsqueeze(0)
        positions = torch.arange(embeddings.shape[1], device=self._device)
        _, seen = self.model.text(embeddings, positions)
        return EncodedImage(tuple(seen))

    @torch.inference_mode()
    def detect(
        self, image: EncodedImage, prompts: Sequence[str], max_objects: int = DEFAULT_MAX_OBJECTS
    ) -> list[list[DetectedObject]]:
        """Finds what each prompt names, at most `max_objects` each.

        Raises:
            PromptTooLongError: a prompt and its objects would not fit the model's context.
        """
        tokens = [self._prompt_tokens(prompt, max_objects) for prompt in prompts]
        return [self._detect_one(image, prompt_tokens, max_objects) for prompt_tokens in tokens]

    def _prompt_tokens(self, prompt: str, max_objects: int) -> list[int]:
        template = self._config.tokenizer.templates.detect
        tokens = [*template.prefix, *self.tokenizer.encode(" " + prompt).ids, *template.suffix]
        room = self._config.text.max_context - self._config.prefix_length - STEPS_PER_OBJECT * max_objects
        if len(tokens) > room:
            raise PromptTooLongError(
                f"the prompt {prompt[:40]!r}... has {len(tokens)} tokens; "
                f"{max(room, 0)} fit beside the image and {max_objects} objects"
            )
        return tokens

    def _detect_one(self, image: EncodedImage, tokens: list[int], max_objects: int) -> list[DetectedObject]:
        region, tokenizer = self.model.region, self._config.tokenizer
        decoding = _Decoding(self.model, image)
        hidden = decoding.advance(self._embed_tokens(tokens))
        objects: list[DetectedObject] = []
        while len(objects) < max_objects:
            logits = self.model.text.logits(hidden).float()
            if int(logits.argmax()) == tokenizer.eos_id:
                break
            p_object = torch.sigmoid(logits[tokenizer.coord_id] - logits[tokenizer.eos_id])
            x_bin, p_x = _most_likely(region.coordinate_logits(hidden))
            x = coordinate_from_bin(x_bin, self._config.region.coord_out_dim)
            hidden = decoding.advance(region.encode_coordinate(x.unsqueeze(0)))
            y_bin, p_y = _most_likely(region.coordinate_logits(hidden))
            y = coordinate_from_bin(y_bin, self._config.region.coord_out_dim)
            hidden = decoding.advance(region.encode_coordinate(y.unsqueeze(0)))
            size_bins, p_size = _most_likely(region.size_logits(hidden))
            size = size_from_bin(size_bins, self._config.region.size_out_dim // 2)
            hidden = decoding.advance(region.encode_size(size.unsqueeze(0)))
            w, h = size.unbind()
            values = torch.stack(
                (x - w / 2, y - h / 2, x + w / 2, y + h / 2, p_object, p_x, p_y, *p_size.unbind())
            )
            objects.append(DetectedObject(*values.tolist()))
        return objects

    def _embed_tokens(self, tokens: Sequence[int]) -> Tensor:
        return self.model.text.embed(torch.tensor(tokens, device=self._device))


class _Decoding:
    """The course of one prompt through the decoder."""

    def __init__(self, model: Moondream2, image: EncodedImage) -> None:
        self._text = model.text
        self._seen: Sequence[KeyValues] = image.prefix

    def advance(self, embeddings: Tensor) -> Tensor:
        """Reads tokens (T, D), each seeing what came before, and gives the last one's state (D,)."""
        length, past = embeddings.shape[0], self._seen[0].keys.shape[2]
        positions = torch.arange(past, past + length, device=embeddings.device)
        mask = None
        if length > 1:
            mask = torch.ones(length, past + length, dtype=torch.bool, device=embeddings.device).tril(past)
        hidden, self._seen = self._text(embeddings.unsqueeze(0), positions, mask, self._seen)
        return hidden[0, -1]


def _most_likely(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Along the last axis, the most likely bin and its probability."""
    probabilities, bins = logits.float().softmax(dim=-1).max(dim=-1)
    return bins, probabilities
