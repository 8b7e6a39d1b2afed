"""Detection: encodes each image once, then decodes all prompts on all images together.

Shapes: B rows (pairs of image and prompt), T tokens, D text width. Coordinates are relative to the image,
0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from workflow_blocks.image_hash import image_hash
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, load_model, load_tokenizer
from workflow_blocks.moondream2.config import MAX_OBJECTS, STEPS_PER_OBJECT, Moondream2Config
from workflow_blocks.moondream2.image_cache import EncodedImageCache
from workflow_blocks.moondream2.image_crops import Tiling, UInt8Array, distinct_crops, images_to_crops
from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.region import Choice, choose_coordinates, choose_sizes, probability_near
from workflow_blocks.moondream2.rows import EncodedImage, KeyValues, Rows

# A refined box averages the bins that are at most this far from the most likely one.
_REFINED_BINS = 32


@dataclass(frozen=True)
class DetectedObject:
    """One object as the model gives it; its box may reach beyond the image.

    `p_object` is the probability that there is another object, `p_box` that of all boxes close to this one.
    """

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    p_object: float
    p_box: float

    @property
    def confidence(self) -> float:
        """How sure the model is of the object and its box, 0 to 1: see docs/scores.md."""
        return self.p_object * self.p_box


class Query(NamedTuple):
    """A prompt and the image to search."""

    image: EncodedImage
    prompt: str


class PromptTooLongError(ValueError):
    """A prompt has more tokens than the model can read."""


class Detector:
    """Runs a loaded model. Threads may share it: the only state that calls change is the locked cache."""

    object_type: type[DetectedObject] = DetectedObject

    def __init__(
        self,
        model: Moondream2,
        tokenizer: Tokenizer,
        memory: WorkingMemory | None = None,
        cache_bytes: int = 0,
        refine_boxes: bool = False,
    ) -> None:
        """Wraps a model that is ready to run.

        Args:
            model: the model, on its device.
            tokenizer: its tokenizer.
            memory: how much memory a call may use; the default suits a small machine.
            cache_bytes: how much memory encoded images may use between calls.
            refine_boxes: whether boxes are placed between bins, rather than at the most likely bins.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.cache = EncodedImageCache(cache_bytes)
        self._config = model.config
        self._device = model.text.wte.device
        self._itemsize = model.text.wte.itemsize
        self._memory = memory or WorkingMemory()
        self._refine_boxes = refine_boxes

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> "Detector":
        """Loads a checkpoint folder; `options` are those of the constructor.

        Raises:
            CheckpointError, ConfigError: the checkpoint is incomplete or damaged.
        """
        config = Moondream2Config.from_file(folder / CONFIG_FILE)
        tokenizer = load_tokenizer(folder, config)
        return cls(load_model(folder, config, device or torch.device("cpu"), dtype), tokenizer, **options)

    @property
    def images_at_once(self) -> int:
        """How many encoded images the working memory holds."""
        return self._memory.images_at_once(self._config, self._itemsize)

    @torch.inference_mode()
    def encode_images(self, images_rgb: Sequence[UInt8Array]) -> list[EncodedImage]:
        """Encodes uint8 RGB images (H, W, 3), or takes them from the cache."""
        if not self.cache.max_bytes:
            return self._encode(images_rgb)
        keys = [image_hash(image).digest() for image in images_rgb]
        encoded = {key: kept for key in keys if (kept := self.cache.get(key)) is not None}
        missing = {key: image for key, image in zip(keys, images_rgb, strict=True) if key not in encoded}
        for key, image in zip(missing, self._encode(list(missing.values())), strict=True):
            encoded[key] = image
            self.cache.put(key, image)
        return [encoded[key] for key in keys]

    def check_prompts(self, prompts: Sequence[str], max_objects: int = MAX_OBJECTS) -> None:
        """Raises `PromptTooLongError` if a prompt and its objects would not fit the model's context."""
        for prompt in prompts:
            self._prompt_tokens(prompt, max_objects)

    @torch.inference_mode()
    def detect(self, queries: Sequence[Query], max_objects: int = MAX_OBJECTS) -> list[list[DetectedObject]]:
        """Finds the objects that each query names, at most `max_objects` each.

        Raises:
            PromptTooLongError: a prompt and its objects would not fit the model's context.
        """
        prompts = dict.fromkeys(query.prompt for query in queries)
        tokens_of = {prompt: self._prompt_tokens(prompt, max_objects) for prompt in prompts}
        tokens = [tokens_of[query.prompt] for query in queries]
        # Rows of one image lie side by side, and among them those of one length.
        image_order = {id(query.image): place for place, query in enumerate(queries)}
        order = sorted(range(len(queries)), key=lambda i: (image_order[id(queries[i].image)], len(tokens[i])))
        groups = self._memory.group_rows(
            self._config, self._itemsize, [len(tokens[i]) for i in order], STEPS_PER_OBJECT * max_objects
        )
        found: list[list[DetectedObject]] = [[] for _ in queries]
        for group in groups:
            chosen = [order[place] for place in group]
            images = [queries[i].image for i in chosen]
            answers = self._decode(images, [tokens[i] for i in chosen], max_objects)
            for i, objects in zip(chosen, answers, strict=True):
                found[i] = objects
        return found

    def _encode(self, images_rgb: Sequence[UInt8Array]) -> list[EncodedImage]:
        crops = images_to_crops(images_rgb, self._config.vision)
        features = self._encode_crops([distinct_crops(part) for part in crops])
        return [self._read_image(own, part.tiling) for own, part in zip(features, crops, strict=True)]

    def _encode_crops(self, crops_of_images: list[UInt8Array]) -> list[Tensor]:
        """Crops (N, S, S, 3) of several images to features (N, P, C) of each."""
        if not crops_of_images:
            return []
        at_once = self._memory.crops_at_once(self._config.vision, self._itemsize, self._device)
        chunks = torch.from_numpy(np.concatenate(crops_of_images)).split(at_once)
        features = torch.cat([self.model.vision.encode_crops(chunk.to(self._device)) for chunk in chunks])
        return list(features.split([len(crops) for crops in crops_of_images]))

    def _read_image(self, features: Tensor, tiling: Tiling) -> EncodedImage:
        """The features of an image's distinct crops (N, P, C) through the decoder."""
        if len(features) == 1:
            features = features.expand(2, -1, -1)
        image_embeddings = self.model.vision.project(features, tiling)
        bos = self._embed([[self._config.tokenizer.bos_id]])[0]
        layers = self.model.text.read_prefix(torch.cat((bos, image_embeddings)).unsqueeze(0))
        return EncodedImage(tuple(KeyValues.of(heads[0], self._config.text.n_kv_heads) for heads in layers))

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

    def _decode(
        self, images: list[EncodedImage], tokens: list[list[int]], max_objects: int
    ) -> list[list[DetectedObject]]:
        """The objects of each row; rows of one image lie side by side."""
        region, steps = self.model.region, []
        rows = self._start_rows(images, tokens)
        # The places in `tokens` of the rows that have not ended.
        places = torch.arange(len(tokens), device=self._device)
        hidden = self._advance(rows, self._embed_padded(tokens))
        for count in range(1, max_objects + 1):
            more, p_object = self._is_there_more(hidden)
            if not bool(more.all()):
                stay = more.nonzero().squeeze(1)
                places, hidden, p_object = places[stay], hidden[stay], p_object[stay]
                if not len(places):
                    break
                rows.keep(stay)
            x = choose_coordinates(region.coordinate_logits(hidden))
            hidden = self._advance(rows, region.encode_coordinate(x.value).unsqueeze(1))
            y = choose_coordinates(region.coordinate_logits(hidden))
            hidden = self._advance(rows, region.encode_coordinate(y.value).unsqueeze(1))
            w, h = choose_sizes(region.size_logits(hidden))
            steps.append((places, self._values(p_object, x, y, w, h)))
            if count < max_objects:
                sizes = torch.stack((w.value, h.value), dim=-1)
                hidden = self._advance(rows, region.encode_size(sizes).unsqueeze(1))
        found: list[list[DetectedObject]] = [[] for _ in tokens]
        for places, values in steps:
            for row, row_values in zip(places.tolist(), values.tolist(), strict=True):
                found[row].append(self.object_type(*row_values))
        return found

    def _start_rows(self, images: list[EncodedImage], tokens: list[list[int]]) -> Rows:
        per_image = [list(same) for _, same in groupby(images, key=id)]
        lengths = torch.tensor([len(row) for row in tokens], device=self._device)
        prefixes = [same[0].prefix for same in per_image]
        return Rows(self._config.text, prefixes, [len(same) for same in per_image], lengths)

    def _advance(self, rows: Rows, embeddings: Tensor) -> Tensor:
        """Reads the rows' next tokens (B, T, D) and gives the last one's states (B, D)."""
        return self.model.text(embeddings, rows)[:, -1]

    def _is_there_more(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each row continues with another object, and the probability of that."""
        tokenizer = self._config.tokenizer
        logits = self.model.text.logits(hidden).float()
        p_object = torch.sigmoid(logits[:, tokenizer.coord_id] - logits[:, tokenizer.eos_id])
        return logits.argmax(dim=-1) != tokenizer.eos_id, p_object

    def _values(self, p_object: Tensor, x: Choice, y: Choice, w: Choice, h: Choice) -> Tensor:
        """The fields of a `DetectedObject` for each row, (B, number of fields)."""
        choices = (x, y, w, h)
        centre_x, centre_y, width, height = (
            choice.mean_near(_REFINED_BINS) if self._refine_boxes else choice.value for choice in choices
        )
        box = (
            centre_x - width / 2,
            centre_y - height / 2,
            centre_x + width / 2,
            centre_y + height / 2,
        )
        p_box = probability_near(x, w) * probability_near(y, h)
        return torch.stack((*box, p_object, p_box), dim=-1)

    def _embed_padded(self, tokens: list[list[int]]) -> Tensor:
        """Token ids of each row, padded on the left, to embeddings (B, T, D)."""
        longest = max(len(row) for row in tokens)
        return self._embed([[0] * (longest - len(row)) + row for row in tokens])

    def _embed(self, tokens: list[list[int]]) -> Tensor:
        return self.model.text.embed(torch.tensor(tokens, device=self._device))
