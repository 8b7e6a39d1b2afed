"""Runs a workflow over all images of an input on a Ray cluster, and continues what an earlier run began."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.console import Console

from workflow_blocks.cluster.addresses import without_secrets
from workflow_blocks.cluster.checks import check_definition
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.job_folder import JobFolder
from workflow_blocks.cluster.ledger import LedgerKeeper, Progress
from workflow_blocks.cluster.manifest import Manifest, find_images
from workflow_blocks.cluster.parts import PartWorker
from workflow_blocks.cluster.progress import ProgressDisplay
from workflow_blocks.cluster.session import (
    check_capacity,
    fitting_workers,
    import_ray,
    last_line,
    quiet_data_context,
    ray_session,
)
from workflow_blocks.cluster.store import Store

# Each block of Ray Data costs the driver memory, so many parts share one.
_MAX_BLOCKS = 20_000
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """What to run, over what, and where.

    Attributes:
        definition: the workflow.
        source: a folder, a prefix on object storage, an image, or a Parquet file with the column `uri`.
        output: the folder of the results, local or on object storage.
        parameters: of the workflow.
        workers: how many, or the least and the most; None takes as many as fit.
        batch_size: images of one run of the workflow.
        cpus_per_worker: CPUs that Ray reserves for a worker.
        gpus_per_worker: GPUs that Ray reserves for a worker.
        address: of the Ray cluster; None starts Ray on this machine.
        again: whether to remove the results of an earlier job, and start anew.
    """

    definition: Mapping[str, Any]
    source: str
    output: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    workers: tuple[int, int] | None = None
    batch_size: int = 32
    cpus_per_worker: float = 0.9
    gpus_per_worker: float = 0
    address: str | None = None
    again: bool = False


@dataclass(frozen=True)
class JobSummary:
    """What a job did.

    Attributes:
        n_images: images of the input, each of which has one row.
        n_failed: rows with an error.
        n_done_before: rows of earlier runs.
        n_equal: addresses that were given more than once, and left out.
        n_skipped: files of the input folder that are no images.
        seconds: of this run, from the start of the workers.
        images_per_second: of this run, from the first result on; of the last run that had something to do.
    """

    n_images: int
    n_failed: int
    n_done_before: int
    n_equal: int
    n_skipped: int
    seconds: float
    images_per_second: float


def run_job(job: Job, console: Console | None = None) -> JobSummary:
    """Runs a job to its end.

    Raises:
        ClusterError: it cannot start, or cannot go on; the same call continues it.
    """
    console = console or Console(quiet=True)
    config = _config_of(job)
    folder = JobFolder(Store(job.output))
    manifest = folder.earlier_manifest(job.definition, job.parameters, job.source, job.again)
    with console.status("Listing the images..."):
        images = find_images(job.source) if manifest is None else None
    with console.status("Checking the workflow (Inference's imports take a while)..."):
        check_definition(job.definition, job.parameters)
    with _starting(console, job.address):
        if job.workers is None:
            config = replace(config, concurrency=max(1, fitting_workers(config)))
        check_capacity(config)
        _note_unused_gpus(job, console)
        if images is not None:
            manifest = folder.start(
                job.definition, job.parameters, job.source, images, config.max_workers, job.batch_size
            )
        assert manifest is not None
        return run_parts(config, folder, manifest, console)


@contextmanager
def _starting(console: Console, address: str | None) -> Iterator[None]:
    with ExitStack() as stack:
        with console.status("Starting Ray..." if address is None else "Connecting to Ray..."):
            stack.enter_context(ray_session(address))
        yield


def run_parts(
    config: ClusterConfig,
    folder: JobFolder,
    manifest: Manifest,
    console: Console,
    worker: type = PartWorker,
) -> JobSummary:
    """Runs the parts of a job that have no rows yet, on the cluster that this process is connected to.

    Args:
        config: the workflow and its workers.
        folder: of the job.
        manifest: of the job.
        console: where progress is shown.
        worker: a class like `PartWorker`.

    Raises:
        ClusterError: a worker failed, or the cluster was lost.
    """
    start = time.monotonic()
    todo = _missing(folder, manifest)
    n_before = manifest.n_images - sum(map(manifest.rows_of, todo))
    progress = Progress(0, 0)
    if todo:
        keeper = _start_keeper(n_before)
        with ProgressDisplay(console, manifest.n_images, n_before) as display:
            running = _in_background(lambda: _run_parts(config, folder.store, keeper, todo, worker))
            progress = _show_until_done(running, keeper, display, config)
        if remaining := _missing(folder, manifest):
            raise ClusterError(f"{len(remaining)} parts were not written; the same command tries again")
    seconds = time.monotonic() - start
    n_new = manifest.n_images - n_before
    rate = progress.rate or n_new / seconds
    if not todo:  # a finished job keeps what its last run measured
        earlier = folder.summary()
        rate, seconds = earlier.get("images_per_second", rate), earlier.get("seconds", seconds)
    summary = JobSummary(
        n_images=manifest.n_images,
        n_failed=folder.write_failures(),
        n_done_before=n_before,
        n_equal=manifest.n_equal,
        n_skipped=manifest.n_skipped,
        seconds=round(seconds, 3),
        images_per_second=round(rate, 3),
    )
    folder.write_summary(asdict(summary))
    return summary


def _config_of(job: Job) -> ClusterConfig:
    return ClusterConfig(
        definition=job.definition,
        parameters=job.parameters,
        batch_size=job.batch_size,
        concurrency=job.workers or 1,
        cpus_per_worker=job.cpus_per_worker,
        gpus_per_worker=job.gpus_per_worker,
    )


def _note_unused_gpus(job: Job, console: Console) -> None:
    import ray

    n_gpus = ray.available_resources().get("GPU", 0)
    if n_gpus and not job.gpus_per_worker:
        console.print(
            f"[yellow]The cluster has {n_gpus:g} free GPUs, and the workers use none; --gpus-per-worker 1 "
            "gives one to each.[/yellow]",
            soft_wrap=True,
        )


def _missing(folder: JobFolder, manifest: Manifest) -> list[int]:
    done = folder.parts_done()
    return [part for part in range(manifest.n_parts) if part not in done]


def _start_keeper(n_before: int) -> Any:
    """The ledger, on the driver's node: it is lost only when the job is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(LedgerKeeper).remote(n_before)


def _run_parts(config: ClusterConfig, store: Store, keeper: Any, parts: Sequence[int], worker: type) -> None:
    """Lets the workers write these parts.

    Raises:
        ClusterError: a worker raised an error.
    """
    # Raised here, where no frame refers to the workers: they end, and free their CPUs, when nothing does.
    if failure := _failure_of_parts(config, store, keeper, parts, worker):
        reason, details = failure
        raise ClusterError(reason) from RuntimeError(details)


def _failure_of_parts(
    config: ClusterConfig, store: Store, keeper: Any, parts: Sequence[int], worker: type
) -> tuple[str, str] | None:
    """Lets the workers write these parts; returns why and how that failed, or None.

    When a node goes, Ray starts its workers elsewhere: if there is no room, as soon as others have nothing
    more to do.
    """
    ray = import_ray()
    quiet_data_context()
    blocks = min(len(parts), _MAX_BLOCKS)
    dataset = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=blocks)
    n_most = min(config.max_workers, blocks)
    written = dataset.map_batches(
        worker,
        fn_constructor_kwargs={"config": config, "store": store, "keeper": keeper},
        batch_size=1,
        # One part at a time: those that wait for a busy worker cannot go to another.
        compute=ray.data.ActorPoolStrategy(
            min_size=min(config.min_workers, n_most), max_size=n_most, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=config.cpus_per_worker,
        num_gpus=config.gpus_per_worker,
        **({"runtime_env": dict(config.runtime_env)} if config.runtime_env else {}),
    )
    try:
        for _ in written.iter_batches(batch_size=None, prefetch_batches=0):
            pass
    except ray.exceptions.RayError as error:
        reason = _why_useless(keeper)
        reason = reason or f"a worker failed: {last_line(error)}; the same command continues the job"
        return reason, without_secrets(str(error))
    return None


def _why_useless(keeper: Any) -> str | None:
    import ray

    with suppress(ray.exceptions.RayError):
        reason: str | None = ray.get(keeper.useless.remote(), timeout=10)
        return reason
    return None


def _in_background(run: Callable[[], None]) -> "Future[None]":
    """Calls a function in a thread that does not keep the program from ending."""
    future: Future[None] = Future()

    def call() -> None:
        try:
            run()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def _show_until_done(
    running: "Future[None]", keeper: Any, display: ProgressDisplay, config: ClusterConfig
) -> Progress:
    """Shows progress, and whether there is a place for workers at all, until the workers are done.

    Raises:
        ClusterError: a worker failed, or Ray ended this job while this program was stopped.
    """
    import ray

    progress = Progress(0, 0)
    is_done = False
    while not is_done:
        is_done = bool(wait([running], _POLL_SECONDS).done)
        if is_done:
            running.result()
        try:
            progress = ray.get(keeper.progress.remote(), timeout=10)
            has_room = fitting_workers(config, ray.cluster_resources()) > 0
        except ray.exceptions.RayActorError as error:
            if is_done:
                break
            raise ClusterError(
                "the cluster lost contact with this program, and ended the job; the same command continues it"
            ) from error
        except ray.exceptions.GetTimeoutError:
            continue
        display.update(progress.n_finished, progress.n_failed, has_room or is_done)
    return progress
