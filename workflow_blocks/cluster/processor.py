"""A workflow as a step of a Ray Data pipeline of one's own.

config = ClusterConfig(definition, {"prompts": ["dog"]}, concurrency=2)
processor = build_processor(config)
ray.data.read_parquet("images.parquet").map_batches(...)
results = processor(dataset)
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.fetch import FetchError, fetch
from workflow_blocks.cluster.rows import RESULTS, table_of
from workflow_blocks.cluster.worker import Image, Pixels, WorkflowRunner
from workflow_blocks.image_files import ImageFileError, decode_image

if TYPE_CHECKING:
    import ray.data

__all__ = ["ClusterConfig", "build_processor"]


def build_processor(config: ClusterConfig) -> "Callable[[ray.data.Dataset], ray.data.Dataset]":
    """A function that adds a workflow's results to a dataset.

    It takes a dataset with the column `config.image_column` or `config.uri_column`. It gives one with the
    same rows and the further columns `width`, `height`, `detections`, `outputs`, `error`, `worker` and
    `seconds`; a column that has such a name is replaced. The definition and the free resources are not
    checked: call `check_definition` and `check_capacity` before.

    Args:
        config: the workflow and its workers.
    """
    from ray.data import ActorPoolStrategy

    def process(dataset: "ray.data.Dataset") -> "ray.data.Dataset":
        return dataset.map_batches(
            BatchWorker,
            fn_constructor_kwargs={"config": config},
            batch_size=config.batch_size,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=config.min_workers, max_size=config.max_workers),
            num_cpus=config.cpus_per_worker,
            num_gpus=config.gpus_per_worker,
            **({"runtime_env": dict(config.runtime_env)} if config.runtime_env else {}),
        )

    return process


class BatchWorker:
    """A class for `Dataset.map_batches`: its batches are rows with images or their addresses."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._runner = WorkflowRunner(config)

    def __call__(self, batch: pa.Table) -> pa.Table:
        images = list(_images_of(batch, self._config))
        results = {result.id: result for result in self._runner.results(images)}
        found = table_of([results[image.id] for image in images])
        for name, _ in RESULTS:
            if name in batch.column_names:
                batch = batch.drop_columns([name])
            batch = batch.append_column(found.schema.field(name), found[name])
        return batch


def _images_of(batch: pa.Table, config: ClusterConfig) -> Iterator[Image]:
    # Rows may repeat an address, so their numbers are their ids.
    if config.image_column is not None:
        for number, value in enumerate(_values(batch[config.image_column])):
            yield Image(str(number), "", partial(_given, value), _pixels_of)
        return
    for number, value in enumerate(batch[config.uri_column].to_pylist()):
        uri = str(value or "")
        yield Image(str(number), uri, partial(fetch, uri), decode_image)


def _values(column: pa.ChunkedArray) -> Iterator[Any]:
    for chunk in column.chunks:
        # Ray's own type for arrays, of one shape or of several.
        values = chunk.to_numpy(zero_copy_only=False) if isinstance(chunk, pa.ExtensionArray) else chunk
        yield from (value if isinstance(value, np.ndarray) else _python(value) for value in values)


def _python(value: Any) -> Any:
    value = value.as_py() if isinstance(value, pa.Scalar) else value
    # As `datasets` writes images.
    return value.get("bytes") if isinstance(value, Mapping) else value


def _given(value: Any) -> Any:
    if value is None:
        raise FetchError("no image")
    return value


def _pixels_of(value: Any) -> Pixels:
    """BGR pixels of encoded bytes or of an RGB array."""
    if isinstance(value, bytes):
        return decode_image(value)
    array = np.asarray(value)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ImageFileError(
            f"an array {array.dtype} {array.shape}; give encoded bytes, or uint8 (H, W, 3) in RGB"
        )
    return np.ascontiguousarray(array[..., ::-1])
