"""A loaded Moondream2 with all its skills: each image is encoded once, and all prompts are decoded together.

Coordinates are relative to the image, 0 to 1.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from workflow_blocks.image_hash import image_hash
from workflow_blocks.moondream2.answers import Answer, AnswerDecoder, TextSettings
from workflow_blocks.moondream2.checkpoint import CONFIG_FILE, load_model, load_tokenizer
from workflow_blocks.moondream2.choices import ChoiceScorer, ScoredChoice, check_choices
from workflow_blocks.moondream2.config import (
    MAX_OBJECTS,
    STEPS_PER_OBJECT,
    STEPS_PER_POINT,
    Moondream2Config,
)
from workflow_blocks.moondream2.decoding import Batcher, Request
from workflow_blocks.moondream2.image_cache import EncodedImageCache
from workflow_blocks.moondream2.image_crops import Tiling, UInt8Array, distinct_crops, images_to_crops
from workflow_blocks.moondream2.int8 import Int8Linear
from workflow_blocks.moondream2.joined_calls import JoinedCalls
from workflow_blocks.moondream2.memory import WorkingMemory
from workflow_blocks.moondream2.model import Moondream2
from workflow_blocks.moondream2.objects import (
    DetectedObject,
    DetectedPoint,
    ObjectDecoder,
)
from workflow_blocks.moondream2.prompt_tokens import Box, Point, Prompts, PromptTokens
from workflow_blocks.moondream2.revision import check_revision
from workflow_blocks.moondream2.rows import EncodedImage, KeyValues

# A call of so many prompts gains nothing from further ones.
_MANY_ROWS = 32

FindTokenizer = Callable[[Path, Moondream2Config], Tokenizer]


class Query(NamedTuple):
    """The name of an object, and the image to search for it."""

    image: EncodedImage
    prompt: str


class Question(NamedTuple):
    """A question about an image, or about places in it."""

    image: EncodedImage
    text: str
    references: Sequence[Point | Box] = ()


class Runtime:
    """Runs a loaded model. Threads may share it: the only state that calls change is the locked cache."""

    object_decoder_type: type[ObjectDecoder] = ObjectDecoder

    def __init__(
        self,
        model: Moondream2,
        tokenizer: Tokenizer,
        memory: WorkingMemory | None = None,
        cache_bytes: int = 0,
        refine_boxes: bool = False,
        max_crops: int | None = None,
        join_calls: bool = True,
    ) -> None:
        """Wraps a model that is ready to run.

        Args:
            model: the model, on its device.
            tokenizer: its tokenizer.
            memory: how much memory a call may use; the default suits a small machine.
            cache_bytes: how much memory encoded images may use between calls.
            refine_boxes: whether boxes are placed between bins, rather than at the most likely bins.
            max_crops: the most local crops of an image, and at most the model's own number.
            join_calls: whether small calls of threads that wait for each other become one, but for those that
                write text, which may take long.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.cache = EncodedImageCache(cache_bytes)
        self._encoder = object()  # stands for this model; the model itself would stay as long as its images
        self._config = model.config
        self.crops_limit = max_crops
        self._device = model.text.wte.device
        self._itemsize = model.text.wte.itemsize
        self._memory = memory or WorkingMemory()
        self._prompts = Prompts(model.config, tokenizer)
        self._batcher = Batcher(model, self._memory)
        # Prompts about an image that is encoded already do not wait for others to be encoded.
        self._encoding = JoinedCalls(large=2, are_joined=join_calls)
        self._decoding = JoinedCalls(_MANY_ROWS, join_calls)
        self._objects = self.object_decoder_type(refine_boxes)
        self._answers = AnswerDecoder(self._batcher, tokenizer)
        self._choices = ChoiceScorer(self._batcher, tokenizer)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        find_tokenizer: FindTokenizer = load_tokenizer,
        compile: bool = False,
        **options: Any,
    ) -> "Runtime":
        """Loads a checkpoint folder.

        Args:
            folder: the folder; nothing is written into it.
            device: where to run; the CPU by default.
            dtype: what to run in; `torch.int8` quantises the large layers, on a CPU.
            find_tokenizer: gives the tokenizer; by default the file in the folder.
            compile: whether `torch.compile` fuses the layers; the first images then take longer.
            options: those of the constructor.

        Raises:
            CheckpointError, ConfigError: the checkpoint is incomplete or damaged.
            RevisionError: it is of another architecture or revision.
        """
        config = Moondream2Config.from_file(folder / CONFIG_FILE)
        check_revision(folder / CONFIG_FILE, config)
        tokenizer = find_tokenizer(folder, config)
        model = load_model(folder, config, device or torch.device("cpu"), dtype, pack=not compile)
        if compile:
            model.compile_blocks()
        return cls(model, tokenizer, **options)

    @property
    def placement(self) -> tuple[torch.device, torch.dtype]:
        """Where the model runs, and what in; `torch.int8` if its large layers are quantised."""
        is_int8 = any(isinstance(module, Int8Linear) for module in self.model.modules())
        return self._device, torch.int8 if is_int8 else self.model.text.wte.dtype

    @property
    def max_crops(self) -> int:
        """The most local crops of an image, by the limit that was given or by the model's own."""
        own = self._config.vision.max_crops
        return own if self.crops_limit is None else min(self.crops_limit, own)

    @property
    def images_at_once(self) -> int:
        """How many encoded images the working memory holds."""
        return self._memory.images_at_once(self._config, self._itemsize)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[UInt8Array], are_bgr: bool = False) -> list[EncodedImage]:
        """Encodes uint8 images (H, W, 3), or takes them from the cache.

        Args:
            images: RGB, or BGR.
            are_bgr: which. To convert a large image first would take as much memory again.
        """
        keyed = [(self._key(image, are_bgr) if self.cache.max_bytes else None, image) for image in images]
        stored = [None if key is None else self.cache.get(key) for key, _ in keyed]
        if all(stored):  # without waiting for others to be encoded
            return [image for image in stored if image]
        encode = partial(self._encode_or_recall, are_bgr=are_bgr)
        return self._encoding(("encode", are_bgr), keyed, encode, self.images_at_once)

    def has_encoded(self, image: object) -> bool:
        """Whether an image is one that this runtime has encoded."""
        return isinstance(image, EncodedImage) and image.encoder is self._encoder

    def check_prompts(self, prompts: Sequence[str], max_objects: int = MAX_OBJECTS) -> None:
        """Raises as `detect` does, before any image is encoded."""
        for prompt in prompts:
            self._object_prompt(self._prompts.detect, prompt, STEPS_PER_OBJECT * max_objects)

    def check_points(self, prompts: Sequence[str], max_objects: int = MAX_OBJECTS) -> None:
        """Raises as `point` does, before any image is encoded."""
        for prompt in prompts:
            self._object_prompt(self._prompts.point, prompt, STEPS_PER_POINT * max_objects)

    def check_question(
        self, text: str, references: Sequence[Point | Box] = (), reasoning: bool = False
    ) -> None:
        """Raises as `query` does, before any image is encoded."""
        self._question_prompt(text, references, reasoning)

    def check_choices(self, text: str, references: Sequence[Point | Box], choices: Sequence[str]) -> None:
        """Raises as `score_choices` does for a question, before any image is encoded."""
        self._choices_prompt(text, references, choices)

    def check_caption(self, length: str) -> None:
        """Raises as `caption` does, before any image is encoded."""
        self._prompts.caption(length)

    @torch.inference_mode()
    def detect(self, queries: Sequence[Query], max_objects: int = MAX_OBJECTS) -> list[list[DetectedObject]]:
        """Finds the objects that each query names, at most `max_objects` each, with boxes.

        Raises:
            PromptError: a prompt is blank or not text.
            PromptTooLongError: a prompt and its objects would not fit the model's context.
            SkillError: the model was not made to detect.
        """
        steps = STEPS_PER_OBJECT * max_objects
        requests = self._object_requests(self._prompts.detect, queries, steps)
        decode = partial(self._objects.boxes, max_objects=max_objects)
        return self._decoding(
            ("detect", max_objects), requests, lambda joined: self._batcher.decode(joined, steps, decode)
        )

    @torch.inference_mode()
    def point(self, queries: Sequence[Query], max_objects: int = MAX_OBJECTS) -> list[list[DetectedPoint]]:
        """Finds the objects that each query names, at most `max_objects` each, as points.

        Raises:
            PromptError, PromptTooLongError, SkillError: as `detect`.
        """
        steps = STEPS_PER_POINT * max_objects
        requests = self._object_requests(self._prompts.point, queries, steps)
        decode = partial(self._objects.points, max_objects=max_objects)
        return self._decoding(
            ("point", max_objects), requests, lambda joined: self._batcher.decode(joined, steps, decode)
        )

    @torch.inference_mode()
    def query(
        self,
        questions: Sequence[Question],
        settings: TextSettings | None = None,
        reasoning: bool = False,
    ) -> list[Answer]:
        """Answers questions, with `reasoning` after thinking about each.

        Raises:
            PromptError: a question is blank or not text, or a spatial reference is invalid.
            PromptTooLongError: a question leaves no room for an answer in the model's context.
            SkillError: the model was not made to answer questions.
        """
        requests = [
            Request(image, self._question_prompt(text, references, reasoning))
            for image, text, references in questions
        ]
        decode = self._answers.reasoned_answers if reasoning else self._answers.answers
        return decode(requests, settings or TextSettings())

    @torch.inference_mode()
    def caption(
        self, images: Sequence[EncodedImage], length: str = "normal", settings: TextSettings | None = None
    ) -> list[Answer]:
        """Describes images.

        Raises:
            PromptError: the length is not `short`, `normal` or `long`.
            SkillError: the model was not made to write captions of this length.
        """
        prompt = self._prompts.caption(length)
        return self._answers.answers([Request(image, prompt) for image in images], settings or TextSettings())

    @torch.inference_mode()
    def score_choices(
        self, questions: Sequence[Question], choices_of_questions: Sequence[Sequence[str]]
    ) -> list[list[ScoredChoice]]:
        """Scores given answers to each question, in the order given.

        Raises:
            PromptError: as `query`, or a question has fewer than two choices, or blank or repeated ones.
            PromptTooLongError: a question with one of its choices would not fit the model's context.
            SkillError: as `query`.
        """
        requests = [
            Request(image, self._choices_prompt(text, references, choices))
            for (image, text, references), choices in zip(questions, choices_of_questions, strict=True)
        ]
        asked = list(zip(requests, choices_of_questions, strict=True))

        def score(
            joined: Sequence[tuple[Request, Sequence[str]]],
        ) -> list[list[ScoredChoice]]:
            return self._choices.score([one for one, _ in joined], [choices for _, choices in joined])

        return self._decoding("choices", asked, score)

    def _object_prompt(self, build: Any, name: str, steps: int) -> PromptTokens:
        prompt: PromptTokens = build(name)
        self._prompts.check_length(prompt, name, steps)
        return prompt

    def _object_requests(self, build: Any, queries: Sequence[Query], steps: int) -> list[Request]:
        names = dict.fromkeys(query.prompt for query in queries)
        prompts = {name: self._object_prompt(build, name, steps) for name in names}
        return [Request(image, prompts[name]) for image, name in queries]

    def _question_prompt(self, text: str, references: Sequence[Point | Box], reasoning: bool) -> PromptTokens:
        prompt = self._prompts.query(text, references, reasoning)
        self._prompts.check_length(prompt, text, 1)
        return prompt

    def _choices_prompt(
        self, text: str, references: Sequence[Point | Box], choices: Sequence[str]
    ) -> PromptTokens:
        check_choices(choices)
        prompt = self._question_prompt(text, references, reasoning=False)
        for choice in choices:
            self._prompts.check_characters(choice)
            self._prompts.check_length(self._choices.longest(prompt, choice), choice, 1)
        return prompt

    def _key(self, image: UInt8Array, are_bgr: bool) -> bytes:
        return image_hash(image).digest() + f"{are_bgr} {self.crops_limit}".encode()

    def _encode_or_recall(
        self, keyed: Sequence[tuple[bytes | None, UInt8Array]], are_bgr: bool
    ) -> list[EncodedImage]:
        """Encodes images that are not in the cache, equal ones once; a key may not be computed yet."""
        encode = partial(self._encode, are_bgr=are_bgr)
        if len(keyed) == 1 and keyed[0][0] is None:
            return encode([keyed[0][1]])
        keys = [key or self._key(image, are_bgr) for key, image in keyed]
        different = dict(zip(keys, (image for _, image in keyed), strict=True))
        encoded = self.cache.get_or_encode(different, encode)
        return [encoded[key] for key in keys]

    def _encode(self, images: Sequence[UInt8Array], are_bgr: bool) -> list[EncodedImage]:
        crops = images_to_crops(images, self._config.vision, self.crops_limit)
        channels = slice(None, None, -1 if are_bgr else 1)
        features = self._encode_crops([distinct_crops(part)[..., channels] for part in crops])
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
        bos = self.model.text.embed(torch.tensor([self._config.tokenizer.bos_id], device=self._device))
        layers = self.model.text.read_prefix(torch.cat((bos, image_embeddings)).unsqueeze(0))
        prefix = tuple(KeyValues.of(heads[0], self._config.text.n_kv_heads) for heads in layers)
        return EncodedImage(prefix, self._encoder)
