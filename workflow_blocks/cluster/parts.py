"""What a worker of a job does: it takes parts of the manifest and writes files of rows."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.fetch import FetchError, fetch
from workflow_blocks.cluster.ledger import PartLedger
from workflow_blocks.cluster.manifest import read_part
from workflow_blocks.cluster.rows import table_of
from workflow_blocks.cluster.store import Store
from workflow_blocks.cluster.worker import Image, WorkflowRunner
from workflow_blocks.image_files import decode_image

ROWS_FOLDER = "rows"
FAILURES_FOLDER = "job/failures"


def rows_file(part: int) -> str:
    """The name of the rows of a part; the file is there when the part is done."""
    return f"{ROWS_FOLDER}/part-{part:07}.parquet"


def failures_file(part: int) -> str:
    """The name of the failed rows of a part, if it has any."""
    return f"{FAILURES_FOLDER}/part-{part:07}.parquet"


def part_of(name: str) -> int | None:
    """The part of a file by its name without folder; None if it is another file."""
    number = name.removeprefix("part-").removesuffix(".parquet")
    return int(number) if name == f"part-{number}.parquet" and number.isdecimal() else None


class PartWorker:
    """A class for `Dataset.map_batches`: its batches are numbers of parts."""

    def __init__(self, config: ClusterConfig, store: Store, keeper: Any) -> None:
        self._store = store
        self._keeper = keeper
        self._runner = WorkflowRunner(config)

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> dict[str, npt.NDArray[np.int64]]:
        for part in batch["part"]:
            self._write(int(part))
        return batch

    def _write(self, part: int) -> None:
        if self._store.exists(rows_file(part)):
            return  # a worker that died wrote it
        rows = read_part(self._store, part).to_pylist()
        images = [_image(row) for row in rows]
        ledger = PartLedger(self._keeper, part)
        results = {result.id: result for result in self._runner.results(images, ledger)}
        table = table_of([results[row["id"]] for row in rows])
        failed = table.filter(table["error"].is_valid())
        if failed.num_rows:
            self._store.write_table(failures_file(part), failed)
        else:
            self._store.remove(failures_file(part))
        self._store.write_table(rows_file(part), table)


def _image(row: Mapping[str, str | None]) -> Image:
    """An image of the manifest."""
    uri = str(row["uri"])
    load = partial(_refuse, row["error"]) if row["error"] is not None else partial(fetch, uri)
    return Image(str(row["id"]), uri, load, decode_image)


def _refuse(reason: str) -> bytes:
    raise FetchError(reason)
