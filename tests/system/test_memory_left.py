"""Memory that is left: files of Linux laid out as machines, containers and batch systems have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meddift.errors import MemoryLimitError
from meddift.system import memory
from meddift.system.memory import available_memory, card_memory, peak_memory_bytes, require_memory

GB = 1024**3
MB = 1024**2


@pytest.fixture(autouse=True)
def _no_batch(monkeypatch):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


def lay_out(root: Path, files: dict[str, str], *, machine: int = 64 * GB) -> Path:
    """A root with /proc/meminfo and further files."""
    for name, text in {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {machine // 1024} kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(folder: str, limit: str, used: int, inactive: int = 0, high: str = "max") -> dict[str, str]:
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.high": f"{high}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {inactive}\nactive_file 7\n",
    }


MOUNTED_V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
MOUNTED_V1 = "36 25 0:31 {root} /sys/fs/cgroup/memory rw,nosuid shared:15 - cgroup cgroup rw,memory\n"
STATUS = "Name:\tpython\nVmSize:\t 900000 kB\nVmRSS:\t  524288 kB\nVmData:\t 300000 kB\n"


def test_a_machine_without_limits(tmp_path):
    assert available_memory(lay_out(tmp_path, {})) == 64 * GB


def test_a_container_of_version_2_sees_its_own_group_as_the_root(tmp_path):
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": MOUNTED_V2}
    files |= v2("sys/fs/cgroup", str(4 * GB), 3 * GB, inactive=GB)
    assert available_memory(lay_out(tmp_path, files)) == 2 * GB


def test_nested_groups_of_version_2_are_bound_by_the_outer_ones(tmp_path):
    # Slurm 23 with version 2: the limit stands at the job, the process is three groups further in.
    inner = "/system.slice/slurmstepd.scope/job_77/step_0/user/task_0"
    files = {"proc/self/cgroup": f"0::{inner}\n", "proc/self/mountinfo": MOUNTED_V2}
    files |= v2(f"sys/fs/cgroup{inner}", "max", 10 * MB)
    files |= v2("sys/fs/cgroup/system.slice/slurmstepd.scope/job_77", str(8 * GB), 5 * GB)
    files |= v2("sys/fs/cgroup/system.slice", str(100 * GB), 20 * GB)
    assert available_memory(lay_out(tmp_path, files)) == 3 * GB


def test_the_soft_limit_of_version_2_counts(tmp_path):
    files = {"proc/self/cgroup": "0::/user.slice\n", "proc/self/mountinfo": MOUNTED_V2}
    files |= v2("sys/fs/cgroup/user.slice", str(16 * GB), 1 * GB, high=str(6 * GB))
    assert available_memory(lay_out(tmp_path, files)) == 5 * GB


@pytest.mark.parametrize("shown", ["/", "/slurm/uid_1000/job_5"])
def test_version_1_with_and_without_a_part_mounted(tmp_path, shown):
    inner = "/slurm/uid_1000/job_5/step_0"
    files = {
        "proc/self/cgroup": f"11:cpuset:/\n7:memory:{inner}\n0::/system.slice\n",
        "proc/self/mountinfo": MOUNTED_V1.format(root=shown),
    }
    base = Path("sys/fs/cgroup/memory")
    at = {path: base / Path(path).relative_to(shown) for path in (inner, str(Path(inner).parent))}
    for path, limit, used in ((inner, 9223372036854771712, GB), (str(Path(inner).parent), 6 * GB, 4 * GB)):
        files[f"{at[path]}/memory.limit_in_bytes"] = f"{limit}\n"
        files[f"{at[path]}/memory.usage_in_bytes"] = f"{used}\n"
        files[f"{at[path]}/memory.stat"] = f"inactive_file 1\ntotal_inactive_file {GB // 2}\n"
    assert available_memory(lay_out(tmp_path, files)) == 2 * GB + GB // 2


def test_slurm_without_control_groups(tmp_path, monkeypatch):
    root = lay_out(tmp_path, {"proc/self/status": STATUS})
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4096")
    assert available_memory(root) == 4096 * MB - 512 * MB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all of the machine
    assert available_memory(root) == 64 * GB
    monkeypatch.delenv("SLURM_MEM_PER_NODE")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "2048")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    assert available_memory(root) == 6144 * MB - 512 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is of Linux")
def test_a_limit_of_the_process_itself():
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 * 1024**3, 3 * 1024**3))
from meddift.system.memory import available_memory
print(available_memory())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 1.5 * GB < int(done.stdout) < 3 * GB


def test_damaged_files_of_the_system_say_nothing(tmp_path):
    files = {
        "proc/self/cgroup": "garbage\n::\n7:memory\n0::../up\n0::/../..\n",
        "proc/self/mountinfo": MOUNTED_V2 + "\n - \n1 2 3\n",
        **v2("sys/fs/cgroup", "4 GB", 0),
    }
    assert available_memory(lay_out(tmp_path, files)) == 64 * GB


def test_other_systems_ask_their_library(tmp_path, monkeypatch):
    import psutil

    class Answer:
        available = 123456789

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Answer)
    assert available_memory(tmp_path) == 123456789


def test_what_does_not_fit_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 2_000_000_000)
    require_memory(2_000_000_000, "reading a.nii")
    with pytest.raises(MemoryLimitError, match=r"reading a\.nii needs about 2\.1 GB .* 2\.0 GB are available"):
        require_memory(2_100_000_000, "reading a.nii")


def test_the_peak_is_at_least_what_is_held():
    held = bytearray(50 * MB)
    assert len(held) < peak_memory_bytes() < 1024 * GB


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak may hold the peak of the process before")
def test_a_small_program_started_by_a_large_one_tells_its_own_peak():
    small = "from meddift.system.memory import peak_memory_bytes; print(peak_memory_bytes())"
    large = f"import subprocess, sys; held = b'1' * {400 * MB}; subprocess.run([sys.executable, '-c', {small!r}])"
    said = subprocess.run([sys.executable, "-c", large], check=True, capture_output=True, text=True, timeout=120)
    assert MB < int(said.stdout) < 300 * MB


def test_memory_of_a_card_that_pytorch_holds_without_using_it_is_free_to_this_process(monkeypatch):
    import torch

    asked = []

    def answering(value):
        return lambda device: asked.append(device) or value

    monkeypatch.setattr(torch.cuda, "mem_get_info", answering((3 * GB, 80 * GB)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", answering(20 * GB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", answering(5 * GB))
    assert card_memory("cuda:1") == 18 * GB
    assert asked == ["cuda:1"] * 3
