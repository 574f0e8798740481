"""Memory of the process that runs."""

import resource
from pathlib import Path


def peak_mb() -> float:
    """The most memory that this process has held, in MB.

    `ru_maxrss` would be too much: on Linux a process begins with the peak of the one that started
    it, and a benchmark that holds torch and a server of pictures is larger than what it measures.
    """
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, where it is in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
