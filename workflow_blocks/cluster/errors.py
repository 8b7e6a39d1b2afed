"""What keeps a job on a cluster from running."""

from workflow_blocks.running.errors import RunError


class ClusterError(RunError):
    """A job cannot start or go on; the message says how to fix it."""
