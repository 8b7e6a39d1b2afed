"""How much memory this process can still use."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil
import torch


class _Hierarchy(NamedTuple):
    """Where Linux tells the limit and the use of a group of processes, and what it frees when it must."""

    controller: str
    root: Path
    limit: str
    used: str
    reclaimable: str


_GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
_HIERARCHIES = (
    # cgroup v2
    _Hierarchy("", Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    # cgroup v1
    _Hierarchy(
        "memory",
        Path("/sys/fs/cgroup/memory"),
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be used on a device, the limits of containers included; None if that is not known."""
    if device.type == "cuda":
        # PyTorch keeps what it has freed, and uses it again.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type != "cpu":
        return None
    return min([int(psutil.virtual_memory().available), *_free_in_groups()])


def _free_in_groups() -> Iterator[int]:
    """What each group that this process is in, and each group around it, has left; none outside Linux."""
    try:
        lines = _GROUPS_OF_PROCESS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for hierarchy in _HIERARCHIES:
            if hierarchy.controller in controllers.split(","):
                group = PurePosixPath(path.lstrip("/"))
                for folder in (group, *group.parents):
                    if (free := _free_in_group(hierarchy.root / folder, hierarchy)) is not None:
                        yield free


def _free_in_group(folder: Path, hierarchy: _Hierarchy) -> int | None:
    try:
        limit = int((folder / hierarchy.limit).read_text())
        used = int((folder / hierarchy.used).read_text())
    except (OSError, ValueError):  # another container's view of the groups, or "max"
        return None
    return max(0, limit - used + _reclaimable(folder, hierarchy))


def _reclaimable(folder: Path, hierarchy: _Hierarchy) -> int:
    """Bytes of files that were read and are only kept in case they are read again."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)[hierarchy.reclaimable])
    except (OSError, ValueError, KeyError):
        return 0
