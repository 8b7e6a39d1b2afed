"""What workers have begun and not finished: so an image that kills them is found, and progress is known."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workflow_blocks.cluster.errors import ClusterError

# An image that was being processed when this many workers died is given up.
MAX_DEATHS = 3
# A job stops if the workflow fails in the same way for so many of its first images, and for no other reason.
MIN_REFUSALS = 32


@dataclass(frozen=True)
class Progress:
    """How many images have results, and how many of all failed, since the ledger was made.

    `rate` is in images per second; None without results.
    """

    n_finished: int
    n_failed: int
    rate: float | None = None


class Ledger:
    """A ledger of one part; this one notes nothing, for pipelines in which nobody asks."""

    def deaths(self, ids: Sequence[str]) -> dict[str, int]:
        """How often each of these images was begun and not finished; only those that were."""
        return {}

    def begin(self, ids: Sequence[str]) -> None:
        """Notes that images are being processed, before it returns.

        Raises:
            ClusterError: the workflow fails for every image, so that it makes no sense to begin others.
        """

    def finish(self, ids: Sequence[str], n_failed: int, refusals: Sequence[str] = ()) -> None:
        """Notes that images have results.

        Args:
            ids: of the images.
            n_failed: how many of the results are errors.
            refusals: those of the errors that the workflow gave for an image that could be read.
        """


NO_LEDGER = Ledger()


class PartLedger(Ledger):
    """The ledger of a part, kept by an actor of `LedgerKeeper`."""

    def __init__(self, keeper: Any, part: int) -> None:
        import ray

        self._keeper = keeper
        self._part = part
        self._get = ray.get

    def deaths(self, ids: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = self._get(self._keeper.deaths.remote(self._part, ids))
        return found

    def begin(self, ids: Sequence[str]) -> None:
        if ids and (reason := self._get(self._keeper.begin.remote(ids))):
            raise ClusterError(reason)

    def finish(self, ids: Sequence[str], n_failed: int, refusals: Sequence[str] = ()) -> None:
        self._get(self._keeper.finish.remote(self._part, ids, n_failed, refusals))


class LedgerKeeper:
    """An actor beside the driver, which outlives the workers."""

    def __init__(self, n_before: int = 0) -> None:
        """`n_before` images have results of earlier runs."""
        self._may_be_useless = n_before == 0
        self._refusals: Counter[str] = Counter()
        self._begin: float | None = None
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None
        self._n_all = 0
        self._open: Counter[str] = Counter()
        self._finished: Counter[int] = Counter()
        self._failed: Counter[int] = Counter()

    def deaths(self, part: int, ids: Sequence[str]) -> dict[str, int]:
        """See `Ledger.deaths`. The part is counted anew: its worker died before it wrote the part."""
        self._finished.pop(part, None)
        self._failed.pop(part, None)
        return {image_id: self._open[image_id] for image_id in ids if image_id in self._open}

    def begin(self, ids: Sequence[str]) -> str | None:
        """Returns why no image should be begun, if that is so."""
        if reason := self.useless():
            return reason
        self._begin = self._begin or time.monotonic()
        self._open.update(ids)
        return None

    def useless(self) -> str | None:
        """What to say if the workflow failed in the same way for all of the first images."""
        if not self._may_be_useless or self._refusals.total() < MIN_REFUSALS:
            return None
        (reason,) = self._refusals
        return (
            f"the workflow failed for the first {self._refusals.total()} images: {reason}; change the "
            "workflow or its parameters, and give --again"
        )

    def finish(self, part: int, ids: Sequence[str], n_failed: int, refusals: Sequence[str] = ()) -> None:
        self._refusals.update(refusals if self._may_be_useless else ())
        if n_failed < len(ids) or len(self._refusals) > 1:
            self._may_be_useless = False
        for image_id in ids:
            self._open.pop(image_id, None)
        self._finished[part] += len(ids)
        self._failed[part] += n_failed
        self._n_all += len(ids)
        self._last = (time.monotonic(), self._n_all)
        self._first = self._first or self._last

    def progress(self) -> Progress:
        return Progress(self._finished.total(), self._failed.total(), self._rate())

    def _rate(self) -> float | None:
        """From the first result on; if there was one batch only, with its reading and the models' loading."""
        if self._begin is None or self._first is None or self._last is None:
            return None
        start = (self._begin, 0) if self._last == self._first else self._first
        seconds = self._last[0] - start[0]
        return (self._last[1] - start[1]) / seconds if seconds > 0 else None
