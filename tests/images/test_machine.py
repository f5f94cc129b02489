"""What a process may use, as its control groups say; read from files laid out as Linux does."""

from __future__ import annotations

import pytest

from face_async.images import machine

GIGABYTE = 10**9
memory_limit, processors = machine.memory_limit.__wrapped__, machine.processors.__wrapped__  # each time anew


def lay_out(root, cgroup):
    """Say which control groups the process is in."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)


def write(root, path, text):
    file = root / "sys/fs/cgroup" / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_without_control_groups_it_is_the_machine(tmp_path):
    """As on other systems than Linux."""
    assert memory_limit(tmp_path) > GIGABYTE / 10
    assert processors(tmp_path) >= 1


@pytest.mark.parametrize("path", ["pods/one", ""])
def test_version_2_limits(tmp_path, path):
    """A group's own limit counts, and that of any group above; "max" is none."""
    lay_out(tmp_path, f"0::/{path}\n")
    write(tmp_path, f"{path}/memory.max", "300000000\n")
    write(tmp_path, f"{path}/cpu.max", "50000 100000\n")
    assert memory_limit(tmp_path) == 300_000_000
    assert processors(tmp_path) == 1
    if path:
        write(tmp_path, "pods/memory.max", "200000000\n")
        assert memory_limit(tmp_path) == 200_000_000
    write(tmp_path, f"{path}/memory.max", "max\n")
    write(tmp_path, f"{path}/cpu.max", "max 100000\n")
    assert memory_limit(tmp_path) == (200_000_000 if path else memory_limit(tmp_path / "none"))
    assert processors(tmp_path) == processors(tmp_path / "none")


def test_version_1_limits(tmp_path):
    """Each controller has its folder; a container sees its group as the root, whatever the path."""
    lay_out(tmp_path, "5:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n1:name=systemd:/\nnonsense\n")
    write(tmp_path, "memory/memory.limit_in_bytes", "100000000\n")
    write(tmp_path, "cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "cpu/cpu.cfs_period_us", "100000\n")
    assert memory_limit(tmp_path) == 100_000_000
    assert processors(tmp_path) == processors(tmp_path / "none")
    write(tmp_path, "cpu/cpu.cfs_quota_us", "10000\n")
    assert processors(tmp_path) == 1


def test_a_limit_above_the_machine_is_none(tmp_path):
    """Version 1 says "no limit" by a number larger than any memory; more processors than there are is none either."""
    lay_out(tmp_path, "5:memory:/\n0::/\n")
    write(tmp_path, "memory/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    write(tmp_path, "cpu.max", "100000000 100000\n")
    assert memory_limit(tmp_path) == memory_limit(tmp_path / "none")
    assert processors(tmp_path) == processors(tmp_path / "none")
