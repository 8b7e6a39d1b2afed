"""Joins the calls of threads that wait for the model into one call of more items."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# A call waits for the one that runs so many times as long as calls took before, but no less than this.
_PATIENCE = 3.0
_LEAST_PATIENCE_SECONDS = 0.1
# The share of the last call in the mean of all before.
_NEWEST = 0.2


class JoinedCalls:
    """Runs small calls one after the other: those of one kind that came while one ran, run as one.

    No call waits for others to come, so that a single caller is as quick as without. None waits long for
    another that takes far longer than usual: it then runs beside it. Threads may share it.
    """

    def __init__(self, large: int, are_joined: bool = True) -> None:
        """Makes a queue for one sort of work.

        Args:
            large: a call of so many items is a batch already, and runs at once and alone, so that small
                calls do not wait for it.
            are_joined: if not, all calls run at once, each alone.
        """
        self._large = large
        self._are_joined = are_joined
        self._waiting: list[_Call] = []
        self._waiting_lock = Lock()
        self._running = Lock()
        self._mean_seconds = 0.0

    def __call__(
        self,
        kind: Hashable,
        items: Sequence[_Item],
        run: Callable[[Sequence[_Item]], Sequence[_Result]],
        most_items: int | None = None,
    ) -> list[_Result]:
        """The results of `run`, one for each item.

        Args:
            kind: calls of equal kinds may be joined; their `run` must do the same.
            items: what this call is about.
            run: takes the items of one or several calls.
            most_items: calls are joined up to so many items.

        Raises:
            Exception: what `run` raises for the items of this call alone.
        """
        if not self._are_joined or not 0 < len(items) < self._large:
            return list(run(items))
        call = _Call(kind, items)
        with self._waiting_lock:
            self._waiting.append(call)
        try:
            with self._turn():
                if calls := self._take(call, most_items):
                    self._run(calls, run)
        finally:
            with self._waiting_lock:
                if call in self._waiting:  # interrupted
                    self._waiting.remove(call)
        return list(run(items)) if call.was_interrupted() else call.outcome()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits for the call that runs, but not for long."""
        patience = max(_LEAST_PATIENCE_SECONDS, _PATIENCE * self._mean_seconds)
        is_alone = self._running.acquire(timeout=patience)
        try:
            yield
        finally:
            if is_alone:
                self._running.release()

    def _take(self, own: "_Call", most_items: int | None) -> list["_Call"]:
        """A call and others of its kind, in the order in which they came; none if another thread has it."""
        with self._waiting_lock:
            if own not in self._waiting:
                return []
            taken, n_items = [own], len(own.items)
            for other in self._waiting:
                fits = most_items is None or n_items + len(other.items) <= most_items
                if other is not own and other.kind == own.kind and fits:
                    taken.append(other)
                    n_items += len(other.items)
            self._waiting = [call for call in self._waiting if call not in taken]
        return taken

    def _run(self, calls: list["_Call"], run: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        start = time.monotonic()
        try:
            _run_together(calls, run)
        finally:
            for call in calls:
                call.end_if_interrupted()
        self._mean_seconds += _NEWEST * (time.monotonic() - start - self._mean_seconds)


class _Call:
    """The call of one thread. Calls are compared by identity."""

    def __init__(self, kind: Hashable, items: Sequence[Any]) -> None:
        self.kind = kind
        self.items = items
        self._is_over = Event()
        self._results: Sequence[Any] | None = None
        self._error: Exception | None = None

    def end(self, results: Sequence[Any] = (), error: Exception | None = None) -> None:
        self._results, self._error = results, error
        self._is_over.set()

    def end_if_interrupted(self) -> None:
        """Ends a call that has no outcome, because the thread that ran it was interrupted."""
        self._is_over.set()

    def was_interrupted(self) -> bool:
        """Waits for the end; whether there is no outcome."""
        self._is_over.wait()
        return self._results is None

    def outcome(self) -> list[Any]:
        if self._error is not None:
            raise self._error
        return list(self._results or ())


def _run_together(calls: list[_Call], run: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
    """Runs calls as one; if that fails, each alone, so that an error is that of its own call."""
    items = [item for call in calls for item in call.items]
    try:
        results = run(items)
        if len(results) != len(items):
            raise RuntimeError(f"{len(items)} items have {len(results)} results")
    except Exception as error:
        if len(calls) > 1:
            for call in calls:
                _run_together([call], run)
        else:
            calls[0].end(error=error)
        return
    start = 0
    for call in calls:
        call.end(results[start : start + len(call.items)])
        start += len(call.items)
