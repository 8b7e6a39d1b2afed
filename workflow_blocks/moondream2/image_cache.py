"""Stores encoded images, so that several steps on one image encode it once."""

from collections import OrderedDict
from threading import Lock

from workflow_blocks.moondream2.rows import EncodedImage


class EncodedImageCache:
    """The most recently used encoded images, bounded in bytes. Threads may share it."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._images: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        return self._bytes

    def get(self, key: bytes) -> EncodedImage | None:
        with self._lock:
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
