"""Writes files a second after they changed, so that many changes are written at once.

One process at a time takes this on for a dataset, and holds a lock file until it is done. If it is killed,
the system frees the lock, and the next process that opens the dataset writes the files.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

# Files are at most two seconds old; what is left is for writing them.
DELAY_S = 1.0
_MAX_AGE_S = 3.0

logger = logging.getLogger(__name__)


class LateWrites:
    """The late writes of one dataset. The caller must hold the dataset's lock."""

    def __init__(self, lock_path: Path) -> None:
        self._lock_path = lock_path

    def are_taken_on(self, changed_at: float) -> bool:
        """Whether a living process is going to write what changed at a time, in seconds since 1970."""
        if not 0 <= time.time() - changed_at <= _MAX_AGE_S:
            return False
        lock = self._lock()
        if lock is None:
            return True
        lock.release()
        return False

    def take_on(self, write: Callable[[Callable[[], None]], None]) -> bool:
        """Calls `write` in a second, or as soon as the process ends, unless it is taken on already.

        Args:
            write: takes a function, and calls it after writing, while it holds the dataset's lock.

        Returns:
            False if no thread can be started.
        """
        lock = self._lock()
        if lock is None:
            return True
        try:
            threading.Thread(target=_write_late, args=(write, lock), name="dataset files").start()
        except RuntimeError:  # the process is about to end
            lock.release()
            return False
        return True

    def _lock(self) -> FileLock | None:
        # The thread that releases it is not the one that acquired it.
        lock = FileLock(self._lock_path, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock


def _write_late(write: Callable[[Callable[[], None]], None], lock: FileLock) -> None:
    threading.main_thread().join(DELAY_S)  # ends early if the process ends
    try:
        write(lock.release)
    except Exception:
        logger.exception("A dataset's files could not be written; its next writer tries again")
    finally:
        lock.release()
