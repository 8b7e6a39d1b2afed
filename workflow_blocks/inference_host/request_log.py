"""A line in the log for each request to a model: what was asked, and how long it took."""

import logging
import time
from collections.abc import Sequence
from types import TracebackType

from workflow_blocks.moondream2.rows import EncodedImage

_LOGGER = logging.getLogger(__name__)


class RequestLog:
    """A context manager that logs its request when it ends. Times include waiting for other requests."""

    def __init__(self, model: str, task: str, n_prompts: int) -> None:
        """`n_prompts` are asked about each image."""
        self._model = model
        self._task = task
        self._n_prompts = n_prompts
        self._n_images = self._n_cached = self._n_given = 0
        self._encoding = 0.0

    def __enter__(self) -> "RequestLog":
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._start
        if kind is None and not self._n_images:  # only the arguments were checked
            return
        if kind is not None:  # its message may hold what a client sent
            _LOGGER.info(
                "%s with %s failed after %.3f s: %s", self._task, self._model, seconds, kind.__name__
            )
            return
        before = f"{self._n_cached} from the cache"
        if self._n_given:
            before += f", {self._n_given} given as encoded"
        _LOGGER.info(
            "%s with %s: %d images, %d prompts each, encoded in %.3f s (%s), decoded in %.3f s",
            self._task,
            self._model,
            self._n_images,
            self._n_prompts,
            self._encoding,
            before,
            seconds - self._encoding,
        )

    def add_encoded(self, images: Sequence[EncodedImage], since: float) -> None:
        """Counts images that were encoded, or taken from the cache, since a time of `time.perf_counter`."""
        self._n_images += len(images)
        self._n_cached += sum(image.encoded_at < since for image in images)
        self._encoding += time.perf_counter() - since

    def add_given(self, n_images: int) -> None:
        """Counts images that the caller had encoded before."""
        self._n_images += n_images
        self._n_given += n_images
