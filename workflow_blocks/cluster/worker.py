"""Runs a workflow over images inside a worker: one engine, and batches of images in one run of it."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from workflow_blocks.cluster.addresses import name_of, without_credentials, without_secrets
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.fetch import FetchError
from workflow_blocks.cluster.ledger import MAX_DEATHS, NO_LEDGER, Ledger
from workflow_blocks.cluster.rows import Result, split_outputs, table_of
from workflow_blocks.image_files import ImageFileError
from workflow_blocks.inference_host.engine import make_engine, make_model_manager, use_local_settings
from workflow_blocks.running.errors import FileError, reason_of
from workflow_blocks.running.parameters import BATCH_INPUT, IMAGE_NAME_PARAMETER, image_input
from workflow_blocks.running.settings import check_settings
from workflow_blocks.running.sinks import check_sinks, message_outputs

# Decoded images of one run together, so that a batch of large photographs fits into memory: 400 MB.
MAX_PIXELS_AT_ONCE = 2**27

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Image:
    """An image to process.

    Attributes:
        id: its id in the manifest.
        uri: where it is, for its row.
        load: gives the file's content, and may take long. It raises `FetchError`.
        decode: gives its BGR pixels (H, W, 3). It raises `ImageFileError`.
    """

    id: str
    uri: str
    load: Callable[[], bytes | Pixels]
    decode: Callable[[Any], Pixels]


@dataclass
class _Loaded:
    """An image with its pixels or with the reason why it has none."""

    image: Image
    pixels: Pixels | None = None
    error: str | None = None
    seconds: float = 0.0


class WorkflowRunner:
    """A compiled workflow with its model."""

    def __init__(self, config: ClusterConfig) -> None:
        """Compiles the workflow; its blocks load models now or with the first image.

        Raises:
            SettingsError: a `MOONDREAM2_*` variable of this machine is invalid.
            inference.core.workflows.errors.WorkflowError: the definition does not compile.
        """
        use_local_settings()
        check_settings()
        _use_threads(config.cpus_per_worker)
        self._config = config
        self._definition = dict(config.definition)
        self._image_parameter = image_input(config.definition)
        self._engine = make_engine(self._definition, make_model_manager())
        self._threads = ThreadPoolExecutor(config.fetch_threads)
        self._background = ThreadPoolExecutor(1)
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def results(self, images: Sequence[Image], ledger: Ledger = NO_LEDGER) -> Iterator[Result]:
        """The result of each image, in any order.

        An image that was being processed when workers died is run alone; after `MAX_DEATHS` of them it fails.

        Args:
            images: any number of them; `batch_size` of them are run together.
            ledger: knows what workers that died were processing.

        Raises:
            ClusterError: an image failed, and `should_continue_on_error` is not set; or the ledger says that
                the workflow fails for every image.
        """
        deaths = ledger.deaths([image.id for image in images])
        for image in images:
            if deaths.get(image.id, 0) >= MAX_DEATHS:
                reason = f"{deaths[image.id]} workers died while they processed it"
                ledger.finish([image.id], n_failed=1)
                yield Result(image.id, image.uri, error=reason, worker=self.name)
            elif image.id in deaths:
                for batch in self._load([image], ledger):
                    yield from self._run(batch, ledger)
        usual = [image for image in images if image.id not in deaths]
        for batch in self._loaded_ahead(usual, ledger):
            yield from self._run(batch, ledger)

    def _loaded_ahead(self, images: Sequence[Image], ledger: Ledger) -> Iterator[list[_Loaded]]:
        """Batches; the next one is loaded while the caller runs one."""
        size = self._config.batch_size
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        ahead: Future[Iterator[list[_Loaded]]] | None = None
        for following in [*batches, []]:
            loading = self._background.submit(self._load, following, ledger)
            if ahead is not None:
                yield from ahead.result()
            ahead = loading

    def _load(self, images: Sequence[Image], ledger: Ledger) -> Iterator[list[_Loaded]]:
        """Reads a batch, and decodes `MAX_PIXELS_AT_ONCE` of it; the rest is decoded when it is needed."""
        ledger.begin([image.id for image in images])
        pieces = self._pieces(images)
        return chain([first] if (first := next(pieces, None)) else [], pieces)

    def _pieces(self, images: Sequence[Image]) -> Iterator[list[_Loaded]]:
        piece: list[_Loaded] = []
        n_pixels = 0
        for loaded in map(_decoded, images, self._threads.map(_content, images)):
            n_new = 0 if loaded.pixels is None else loaded.pixels.shape[0] * loaded.pixels.shape[1]
            if piece and n_pixels + n_new > MAX_PIXELS_AT_ONCE:
                yield piece
                piece, n_pixels = [], 0
            piece.append(loaded)
            n_pixels += n_new
        if piece:
            yield piece

    def _run(self, batch: list[_Loaded], ledger: Ledger) -> list[Result]:
        results = [self._failed(loaded, loaded.error) for loaded in batch if loaded.error is not None]
        run = self._run_together([loaded for loaded in batch if loaded.error is None])
        results += run
        failed = [result for result in results if result.error is not None]
        if failed and not self._config.should_continue_on_error:
            raise ClusterError(f"{without_credentials(failed[0].uri)}: {failed[0].error}")
        refusals = [result.error for result in run if result.error is not None]
        ledger.finish([result.id for result in results], len(failed), refusals)
        return results

    def _run_together(self, batch: list[_Loaded]) -> list[Result]:
        if not batch:
            return []
        if len(batch) > 1 and self._takes_names():
            return [result for loaded in batch for result in self._run_together([loaded])]
        start = time.perf_counter()
        try:
            inputs = self._inputs_of(batch)
            every_outputs = self._engine.run(runtime_parameters=inputs, serialize_results=True)
            if len(every_outputs) != len(batch):
                raise FileError(f"the workflow gave {len(every_outputs)} results for {len(batch)} images")
        except Exception as error:  # blocks raise many types
            if len(batch) > 1:
                return [result for loaded in batch for result in self._run_together([loaded])]
            return [self._failed(batch[0], reason_of(error))]
        seconds = (time.perf_counter() - start) / len(batch)
        return [self._done(*pair, seconds) for pair in zip(batch, every_outputs, strict=True)]

    def _takes_names(self) -> bool:
        """Whether the workflow takes the name of an image, which all images of one run would share."""
        is_input = any(entry.get("name") == IMAGE_NAME_PARAMETER for entry in self._definition["inputs"])
        return is_input and IMAGE_NAME_PARAMETER not in self._config.parameters

    def _inputs_of(self, batch: Sequence[_Loaded]) -> dict[str, Any]:
        inputs = dict(self._config.parameters)
        names = [name_of(loaded.image.uri) for loaded in batch]
        if self._takes_names():
            inputs[IMAGE_NAME_PARAMETER] = names[0]
        for entry in self._definition["inputs"]:
            if entry["type"] == BATCH_INPUT:
                values = inputs.get(entry["name"], {})
                for name in names:
                    if name not in values:
                        raise FileError(f"`{entry['name']}` has no value for {name}")
                inputs[entry["name"]] = [values[name] for name in names]
        return inputs | {self._image_parameter: [loaded.pixels for loaded in batch]}

    def _done(self, loaded: _Loaded, outputs: Mapping[str, Any], seconds: float) -> Result:
        result = self._row(loaded)
        result.seconds += seconds
        try:
            check_sinks(self._definition, outputs)
            result.detections, result.outputs = split_outputs(outputs)
            for name in message_outputs(self._definition) & result.outputs.keys():
                # Errors of services quote addresses and headers.
                result.outputs[name] = _without_secrets(result.outputs[name])
            table_of([result])
        except FileError as error:
            return self._failed(loaded, reason_of(error))
        except Exception as error:  # blocks may give anything
            return self._failed(loaded, f"its outputs cannot be written: {reason_of(error)}")
        return result

    def _failed(self, loaded: _Loaded, error: str | None) -> Result:
        result = self._row(loaded)
        result.error = without_secrets(error or "unknown")
        return result

    def _row(self, loaded: _Loaded) -> Result:
        image, pixels = loaded.image, loaded.pixels
        height, width = (None, None) if pixels is None else pixels.shape[:2]
        return Result(image.id, image.uri, width, height, worker=self.name, seconds=loaded.seconds)


def _content(image: Image) -> bytes | Pixels | FetchError:
    try:
        return image.load()
    except FetchError as error:
        return error


def _decoded(image: Image, content: bytes | Pixels | FetchError) -> _Loaded:
    start = time.perf_counter()
    if isinstance(content, FetchError):
        return _Loaded(image, error=str(content))
    try:
        pixels = image.decode(content)
    except ImageFileError as error:
        return _Loaded(image, error=str(error), seconds=time.perf_counter() - start)
    return _Loaded(image, pixels, seconds=time.perf_counter() - start)


def _use_threads(cpus: float) -> None:
    """Lets torch and OpenCV use the CPUs of this worker, not all of the machine's."""
    import cv2
    import torch

    n_threads = max(1, round(cpus))
    torch.set_num_threads(n_threads)
    cv2.setNumThreads(n_threads)


def _without_secrets(value: Any) -> Any:
    """A sink's message, or those of all crops."""
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return without_secrets(value) if isinstance(value, str) else value
