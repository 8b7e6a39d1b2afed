"""Shows how far a job is: a bar on a terminal, else a line now and then."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_SECONDS_BETWEEN_LINES = 30


class ProgressDisplay:
    """A context manager; `update` may be called from any thread."""

    def __init__(self, console: Console, n_images: int, n_before: int) -> None:
        self._console = console
        self._n_images = n_images
        self._n_before = n_before
        self._first: tuple[float, int] | None = None
        self._rate: float | None = None  # images per second, from the first result on
        self._last_line = 0.0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("Starting workers", total=n_images, completed=n_before, note="")

    def __enter__(self) -> "ProgressDisplay":
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, n_finished: int, n_failed: int, has_room: bool = True) -> None:
        """Shows the counts of this run.

        Args:
            n_finished: images that have results, errors included.
            n_failed: how many of them are errors.
            has_room: whether any node could hold a worker.
        """
        now = time.monotonic()
        if n_finished and self._first is None:
            self._first = (now, n_finished)
        note = f"{n_failed} failed"
        if self._first is not None and n_finished > self._first[1]:
            self._rate = (n_finished - self._first[1]) / (now - self._first[0])
            left = max(0, self._n_images - self._n_before - n_finished) / self._rate
            note = f"{self._rate:.1f} images/s, {n_failed} failed, {_duration(left)} left"
        if not has_room:
            note = "no node has room for a worker; waiting for one"
        done = min(self._n_images, self._n_before + n_finished)
        title = "Processing" if n_finished else "Starting workers"
        self._bar.update(self._task, completed=done, note=note, description=title)
        if not self._console.is_terminal and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(f"{title}: {done} of {self._n_images} done, {note}", soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours}:{minutes:02}:{rest:02}"
