"""CPU limits, read from files laid out as machines and containers have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cavalcade.config import cpus

V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
V1_MOUNT = "33 30 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "34 30 0:30 {root} /sys/fs/cgroup/memory rw shared:12 - cgroup cgroup rw,memory\n"


def machine(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("quota", "affinity", "count"),
    [
        ("200000 100000", 8, 2),
        ("250000 100000", 8, 2),
        ("50000 100000", 8, 1),
        ("max 100000", 8, 8),
        ("800000 100000", 4, 4),
        ("junk", 3, 3),
    ],
)
def test_cgroup_v2_quota_and_affinity_are_both_respected(tmp_path: Path, quota: str, affinity: int, count: int) -> None:
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT.format(root="/"), "sys/fs/cgroup/cpu.max": quota + "\n"}
    assert cpus.count(machine(tmp_path, **files), affinity).count == count


def test_the_smallest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/kube/pod7/app\n",
        "proc/self/mountinfo": V2_MOUNT.format(root="/"),
        "sys/fs/cgroup/kube/pod7/app/cpu.max": "max 100000\n",
        "sys/fs/cgroup/kube/pod7/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/kube/cpu.max": "1600000 100000\n",
    }
    assert cpus.count(machine(tmp_path, **files), 32) == cpus.Cpus(3, 32, 3.0)


def test_cgroup_v1_in_a_container_is_found_through_the_mount_table(tmp_path: Path) -> None:
    # The path is the host's, and what is mounted is that very directory.
    files = {
        "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        "proc/self/mountinfo": V1_MEMORY.format(root="/docker/abc") + V1_MOUNT.format(root="/docker/abc"),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "200000\n",
    }
    assert cpus.count(machine(tmp_path, **files), 16).count == 2


def test_cgroup_v1_without_a_limit_says_minus_one(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:cpu,cpuacct:/\n",
        "proc/self/mountinfo": V1_MOUNT.format(root="/"),
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    found = cpus.count(machine(tmp_path, **files), 6)
    assert (found.count, found.quota) == (6, None)
    assert found.reason == "6 usable by affinity, no cgroup CPU limit"


def test_a_process_outside_its_cgroup_namespace_reads_the_mount_itself(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/../../other\n",
        "proc/self/mountinfo": V2_MOUNT.format(root="/"),
        "sys/fs/cgroup/cpu.max": "100000 100000\n",
    }
    assert cpus.count(machine(tmp_path, **files), 4).count == 1


def test_without_any_cgroup_files_the_affinity_counts(tmp_path: Path) -> None:
    assert cpus.count(tmp_path, 5) == cpus.Cpus(5, 5, None)


def test_this_machine_has_at_least_one_cpu_and_no_more_than_its_affinity() -> None:
    assert 1 <= cpus.count().count <= max(1, len(os.sched_getaffinity(0)))
