"""The limits of containers, as Linux tells them in files."""

import psutil
import pytest
import torch

from workflow_blocks.moondream2 import free_memory as free_memory_module
from workflow_blocks.moondream2.free_memory import free_memory

CPU = torch.device("cpu")
V1, V2 = "4:memory:/outer/inner", "0::/outer/inner"
NAMES = {
    V1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    V2: ("memory.max", "memory.current", "inactive_file"),
}


@pytest.fixture(params=[V1, V2], ids=["cgroup v1", "cgroup v2"])
def write_group(request, tmp_path, monkeypatch):
    """Writes what Linux tells of a group; this process is in `outer/inner`."""
    groups = tmp_path / "cgroup"
    groups.write_text(f"9:name=systemd:/\n8:pids,cpu:/\n{request.param}\n")
    monkeypatch.setattr(free_memory_module, "_GROUPS_OF_PROCESS", groups)
    monkeypatch.setattr(
        free_memory_module,
        "_HIERARCHIES",
        [one._replace(root=tmp_path / "groups") for one in free_memory_module._HIERARCHIES],
    )
    limit_name, used_name, reclaimable_name = NAMES[request.param]

    def write(group, limit, used, reclaimable=None):
        folder = tmp_path / "groups" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit_name).write_text(f"{limit}\n")
        (folder / used_name).write_text(f"{used}\n")
        if reclaimable is not None:
            (folder / "memory.stat").write_text(f"anon 5\n{reclaimable_name} {reclaimable}\n")

    return write


@pytest.mark.parametrize("group", ["", "outer", "outer/inner"])
def test_the_limit_of_each_group_around_the_process_counts(write_group, group):
    write_group("", "max", 1)
    write_group("outer", "max", 1)
    write_group("outer/inner", "max", 1)
    write_group(group, 1000, 400)

    assert free_memory(CPU) == 600


def test_the_smallest_of_several_limits_counts(write_group):
    write_group("outer", 1000, 900)
    write_group("outer/inner", 5000, 100)

    assert free_memory(CPU) == 100


def test_files_that_were_only_read_do_not_count_as_used(write_group):
    write_group("outer", 1000, 900, reclaimable=700)

    assert free_memory(CPU) == 800


def test_a_group_over_its_limit_has_nothing_free(write_group):
    write_group("outer", 1000, 1100)

    assert free_memory(CPU) == 0


@pytest.mark.parametrize(("limit", "used"), [("max", 400), ("", ""), ("9223372036854771712", 5)])
def test_without_a_limit_the_machine_s_free_memory_counts(write_group, limit, used):
    write_group("outer/inner", limit, used)

    assert free_memory(CPU) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_other_systems_have_no_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(free_memory_module, "_GROUPS_OF_PROCESS", tmp_path / "missing")

    assert free_memory(CPU) > 10**6
