"""Memory that stays with the process while a run lasts, and goes back afterwards."""

import resource

import pytest
import torch

from handful import devices

pytestmark = pytest.mark.skipif(not devices.keeps_memory(), reason="needs Linux with glibc")
MIB = 2**20


def faults() -> int:
    """Pages the system had to clear for a tensor of 64 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 * MIB)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def fewest_faults() -> int:
    return min(faults() for _ in range(20))


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_the_system_clears_large_blocks_for_the_first_few_only() -> None:
    if fewest_faults() < 1_000:
        pytest.skip("the system's pages are large here")
    with devices.memory_kept():
        assert fewest_faults() < 100


def test_the_outermost_gives_the_memory_back() -> None:
    with devices.memory_kept():
        with devices.memory_kept():
            torch.zeros(64 * MIB)
        inside = resident()
        assert fewest_faults() < 1_000
    assert inside - resident() > 200 * MIB
