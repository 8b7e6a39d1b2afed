"""Connects to Ray, or starts it on this machine, quietly and without usage reports."""

import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workflow_blocks.cluster.addresses import without_secrets
from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.errors import ClusterError

# Images do not pass through Ray's object store: workers read them and write rows themselves.
_OBJECT_STORE_BYTES = 200 * 2**20
_SECONDS_FOR_OTHERS_TO_END = 20.0
_CONNECT_SECONDS = 10.0


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """A connection to Ray; one that exists already is used, and kept.

    Args:
        address: of a cluster, `auto` for that of this machine; None starts Ray on this machine.

    Raises:
        ClusterError: there is no such cluster, or it runs other versions of Ray or Python.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        options["address"] = address
    try:
        if address is not None:
            _check_connection(address)
        with _without_stderr():
            ray.init(**options)
    except Exception as error:  # Ray raises many types
        raise ClusterError(_why_not_connected(address, error)) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_connection(address: str) -> None:
    """Raises `OSError` if nothing listens at `HOST:PORT`: Ray would try again for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Hides what Ray's C++ part writes when it starts; what is wrong is raised too."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def import_ray() -> Any:
    """Imports Ray, with its usage reports off."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Its C++ part writes warnings about Ray Data's own actors to the terminal.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # A busy machine needs longer than the 30 seconds that Ray waits for its own processes.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    import ray
    import ray.data

    return ray


def quiet_data_context() -> Any:
    """Ray Data's settings, for a run that shows its own progress and may wait for long."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a part may take hours
    return context


def fitting_workers(config: ClusterConfig, resources: dict[str, float] | None = None) -> int:
    """How many workers Ray can start now, by what is free on the cluster and by what each node has.

    Args:
        config: what a worker takes.
        resources: what is free; by default, as Ray says.
    """
    import ray

    needs = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    needs = {name: amount for name, amount in needs.items() if amount > 0}
    free = ray.available_resources() if resources is None else resources
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not needs:
        return len(nodes)
    by_node = sum(_times(node, needs) for node in nodes)
    return min(by_node, _times(free, needs))


def _times(resources: dict[str, float], needs: dict[str, float]) -> int:
    return min(int(resources.get(name, 0) / amount + 1e-6) for name, amount in needs.items())


def check_capacity(config: ClusterConfig) -> None:
    """Checks that the least number of workers can start; else Ray would wait for ever.

    Raises:
        ClusterError: the cluster has too few free CPUs or GPUs.
    """
    import ray

    # Workers of a driver that was just killed take some seconds to end.
    end = time.monotonic() + _SECONDS_FOR_OTHERS_TO_END
    while (fits := fitting_workers(config)) < config.min_workers:
        if time.monotonic() > end or fitting_workers(config, ray.cluster_resources()) < config.min_workers:
            break
        gc.collect()  # workers of a job that failed in this program end when nothing refers to them
        time.sleep(0.5)
    else:
        return
    free, total = ray.available_resources(), ray.cluster_resources()
    each = f"{config.cpus_per_worker:g} CPUs" + (
        f" and {config.gpus_per_worker:g} GPUs" if config.gpus_per_worker else ""
    )
    there = ", ".join(
        f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}s are free" for name in ("CPU", "GPU")
    )
    mend = f"give --workers {fits}" if fits else "free some, or add a node"
    raise ClusterError(
        f"{config.min_workers} workers of {each} each were asked for, and {fits} fit: {there}; {mend}"
    )


def _why_not_connected(address: str | None, error: Exception) -> str:
    reason = without_secrets(str(error) or type(error).__name__)
    if "version" in reason.lower() and "mismatch" in reason.lower():
        return f"the cluster runs other versions than this program; install the same here. {reason}"
    if address is None:
        return f"Ray does not start on this machine: {reason}"
    return f"no Ray cluster at {address}: {reason}"


def last_line(error: Exception) -> str:
    """What an error of Ray says of the task that failed, without credentials."""
    lines = [line for line in str(getattr(error, "cause", None) or error).splitlines() if line.strip()]
    return without_secrets(lines[-1].strip() if lines else type(error).__name__)
