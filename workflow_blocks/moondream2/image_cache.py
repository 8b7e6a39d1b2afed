"""Stores encoded images, so that several steps on one image encode it once."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import TypeVar

from workflow_blocks.moondream2.rows import EncodedImage

Image = TypeVar("Image")


class EncodedImageCache:
    """The most recently used encoded images, bounded in bytes. Threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._images: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._being_encoded: dict[bytes, Future[EncodedImage]] = {}
        self._bytes = 0
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        return self._bytes

    def get_or_encode(
        self, images: Mapping[bytes, Image], encode: Callable[[Sequence[Image]], Sequence[EncodedImage]]
    ) -> dict[bytes, EncodedImage]:
        """Stored images by their keys; encodes and stores those that are missing.

        An image that another thread encodes right now is not encoded again: steps of a workflow run at the
        same time, and often all begin with the same image. Raises what `encode` raises, there and here.
        """
        with self._lock:
            stored = {key: image for key in images if (image := self._get(key)) is not None}
            awaited = {
                key: future
                for key in images
                if key not in stored and (future := self._being_encoded.get(key)) is not None
            }
            own = {key: Future[EncodedImage]() for key in images if key not in stored | awaited}
            self._being_encoded.update(own)
        try:
            for key, image in zip(own, encode([images[key] for key in own]), strict=True):
                self.put(key, image)
                own[key].set_result(image)
        except BaseException as error:
            for future in own.values():
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            with self._lock:
                for key in own:
                    del self._being_encoded[key]
        return stored | {key: future.result() for key, future in (own | awaited).items()}

    def get(self, key: bytes) -> EncodedImage | None:
        with self._lock:
            return self._get(key)

    def _get(self, key: bytes) -> EncodedImage | None:
        if key in self._images:
            self._images.move_to_end(key)
        return self._images.get(key)

    def put(self, key: bytes, image: EncodedImage) -> None:
        """Stores an image, unless it is larger than the cache, and removes the least recently used ones."""
        if image.nbytes > self.max_bytes:
            return
        with self._lock:
            replaced = self._images.pop(key, None)
            self._images[key] = image
            self._bytes += image.nbytes - (replaced.nbytes if replaced else 0)
            while self._bytes > self.max_bytes:
                _, oldest = self._images.popitem(last=False)
                self._bytes -= oldest.nbytes
