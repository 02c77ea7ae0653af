"""What this machine offers to runs: GPUs, cores, memory. Free of torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path


def processes_for(groups_per_batch: int, gpus: int) -> int:
    """The largest number of processes, one per GPU, that divides the groups of a batch."""
    return max(count for count in range(1, max(gpus, 1) + 1) if groups_per_batch % count == 0)


def visible_gpus() -> list[int]:
    """Indices of the GPUs that this process may use, without importing torch.

    CUDA_VISIBLE_DEVICES may name them by index or by the start of a UUID. CUDA ignores what follows an unknown name,
    and so does this.
    """
    restricted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if restricted is None:
        return list(range(len(_gpu_uuids())))
    names = [name.strip() for name in restricted.split(",")]
    uuids = _gpu_uuids() if any(name.startswith("GPU-") for name in names) else []
    visible = []
    for name in names:
        named = [i for i, uuid in enumerate(uuids) if name.startswith("GPU-") and uuid.startswith(name)]
        if not name.isdigit() and len(named) != 1:
            break
        visible.append(int(name) if name.isdigit() else named[0])
    return visible


def _gpu_uuids() -> list[str]:
    """The UUID of every GPU of the machine, in the order of their indices."""
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return re.findall(r"^GPU \d+: .*\(UUID: (\S+)\)", listing.stdout, flags=re.MULTILINE)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_gb() -> float:
    """Memory in GiB that new processes can have: as Linux estimates it; elsewhere all that the machine has."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 2**20
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
