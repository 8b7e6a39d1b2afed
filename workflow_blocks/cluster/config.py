"""What runs on a cluster, and how."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workflow_blocks.cluster.errors import ClusterError


@dataclass(frozen=True)
class ClusterConfig:
    """A workflow for the workers of a Ray cluster.

    Attributes:
        definition: the workflow.
        parameters: its parameters.
        batch_size: images of one run of the workflow, at least 1.
        concurrency: how many workers, or the least and the most.
        cpus_per_worker: CPUs that Ray reserves for a worker. A bit less than one leaves a share for other
            tasks.
        gpus_per_worker: GPUs that Ray reserves for a worker; may be a part of one.
        uri_column: the column with the images' addresses, for `build_processor`.
        image_column: the column with the images themselves, as encoded bytes or as uint8 arrays (H, W, 3) in
            RGB as `ray.data.read_images` gives them; it replaces `uri_column`.
        should_continue_on_error: whether an image that fails becomes a row with its error, or ends the run.
        fetch_threads: how many images of a batch are read at once.
        runtime_env: Ray's `runtime_env` of the workers.
    """

    definition: Mapping[str, Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 32
    concurrency: int | tuple[int, int] = 1
    cpus_per_worker: float = 0.9
    gpus_per_worker: float = 0
    uri_column: str = "uri"
    image_column: str | None = None
    should_continue_on_error: bool = True
    fetch_threads: int = 16
    runtime_env: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ClusterError: one is out of its range.
        """
        if self.batch_size < 1 or self.fetch_threads < 1:
            raise ClusterError("batch_size and fetch_threads must be at least 1")
        if not 1 <= self.min_workers <= self.max_workers:
            raise ClusterError(f"concurrency is {self.concurrency}; give N, or M and N with 1 <= M <= N")
        if not all(0 <= amount < math.inf for amount in (self.cpus_per_worker, self.gpus_per_worker)):
            raise ClusterError("cpus_per_worker and gpus_per_worker must be finite and not negative")

    @property
    def min_workers(self) -> int:
        return self.concurrency if isinstance(self.concurrency, int) else self.concurrency[0]

    @property
    def max_workers(self) -> int:
        return self.concurrency if isinstance(self.concurrency, int) else self.concurrency[1]
