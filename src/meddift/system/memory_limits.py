"""Memory that containers, batch systems and `ulimit` leave to this process, as files of Linux state it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: Version 1 writes a number close to 2^63 where there is no limit.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class _Kind:
    """Names of the files of one version of control groups.

    Attributes:
        limits: Files with limits, bytes.
        used: File with the memory in use, bytes.
        reclaimable: Entry of `memory.stat`: the part of it that the kernel frees when memory is short, bytes.
    """

    limits: tuple[str, ...]
    used: str
    reclaimable: str


_V2 = _Kind(("memory.max", "memory.high"), "memory.current", "inactive_file")
_V1 = _Kind(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")


def container_memory(root: Path = Path("/")) -> int | None:
    """Memory that the control groups of this process have left, bytes; None without a limit.

    A group is bound by all groups above it: Slurm and Kubernetes set limits on outer ones.

    Args:
        root: Where /proc and /sys lie.
    """
    left = [_left(folder, kind) for folder, kind in _groups(root)]
    known = [amount for amount in left if amount is not None]
    return min(known) if known else None


def batch_memory(root: Path = Path("/")) -> int | None:
    """Memory that a Slurm job has left on this machine, bytes; None outside of Slurm, or where the job has no limit.

    Many sites stop jobs that take more than they asked for without any control group.

    Args:
        root: Where /proc lies.
    """
    per_node = _megabytes("SLURM_MEM_PER_NODE")
    per_processor = _megabytes("SLURM_MEM_PER_CPU")
    processors = os.environ.get("SLURM_CPUS_ON_NODE", "")
    if per_node is None and per_processor is not None and processors.isdecimal():
        per_node = per_processor * int(processors)
    held = _status(root, "VmRSS")
    return None if not per_node or held is None else per_node - held


def process_memory(root: Path = Path("/")) -> int | None:
    """Memory that the limits of this process leave, bytes (`ulimit -v`, `prlimit --as`); None without a limit.

    Args:
        root: Where /proc lies.
    """
    try:
        import resource
    except ImportError:  # Windows
        return None
    left = []
    for which, line in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit = resource.getrlimit(which)[0]
        held = _status(root, line)
        if limit != resource.RLIM_INFINITY and held is not None:
            left.append(limit - held)
    return min(left) if left else None


def _groups(root: Path) -> Iterator[tuple[Path, _Kind]]:
    """The folders of the memory groups of this process, the innermost first, each followed by those around it."""
    for kind, inner in _memberships(root):
        for top, mounted in _mounts(root, kind):
            # Where only a part of the tree is mounted, as in containers, paths begin above that part.
            inside = inner.relative_to(top) if inner.is_relative_to(top) else PurePosixPath()
            folder = root / mounted.relative_to("/")
            if ".." not in inside.parts:
                for part in (inside, *inside.parents):
                    yield folder / part, kind
            else:
                yield folder, kind


def _memberships(root: Path) -> Iterator[tuple[_Kind, PurePosixPath]]:
    """Version and path of the groups that this process is in (cgroups(7))."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" and path.startswith("/"):
            yield _V2, PurePosixPath(path)
        elif "memory" in controllers.split(",") and path.startswith("/"):
            yield _V1, PurePosixPath(path)


def _mounts(root: Path, kind: _Kind) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
    """For each place where groups of a version are mounted: which group it shows, and the place (proc(5))."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        places, system = before.split(), after.split()
        if len(places) < 5 or len(system) < 3:
            continue
        wanted = system[0] == "cgroup2" if kind is _V2 else system[0] == "cgroup" and "memory" in system[2].split(",")
        if wanted and places[4].startswith("/"):
            yield PurePosixPath(_unescaped(places[3])), PurePosixPath(_unescaped(places[4]))


def _left(folder: Path, kind: _Kind) -> int | None:
    """Bytes that one group has left; None where it has no limit or does not say."""
    limits = [_number(folder / name) for name in kind.limits]
    known = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    used = _number(folder / kind.used)
    if not known or used is None:
        return None
    # Cached files are given back when memory is short.
    reclaimable = 0
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == kind.reclaimable and value.strip().isdecimal():
            reclaimable = int(value)
    return max(min(known) - used + min(reclaimable, used), 0)


def _status(root: Path, name: str) -> int | None:
    """A number of kB in /proc/self/status, as bytes."""
    for line in _lines(root / "proc/self/status"):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _megabytes(variable: str) -> int | None:
    """An environment variable of Slurm, as bytes."""
    value = os.environ.get(variable, "")
    return int(value) * 1024 * 1024 if value.isdecimal() else None


def _number(path: Path) -> int | None:
    """The number in a file; None for `max`, or where there is none."""
    first = next(iter(_lines(path)), "").strip()
    return int(first) if first.isdecimal() else None


def _lines(path: Path) -> list[str]:
    """Lines of a file; none where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _unescaped(text: str) -> str:
    r"""A path of mountinfo, where blanks stand as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)
