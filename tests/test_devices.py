"""Memory is kept by the process during a job, and returned afterwards.

Each job runs in its own process, because memory that other jobs freed would serve its blocks.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import handful
from handful import devices
from handful.models.classifier import BackboneSpec
from handful.models.feature_cache import features
from handful.pipeline.pretrain import pretrain
from handful.progress import Reporter
from tiny import SCHEDULE, stripes

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not devices.keeps_memory(), reason="needs Linux with glibc")
MIB = 2**20


def faults():
    """Page faults of allocating a tensor of 64 MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 * MIB)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def fewest_faults():
    return min(faults() for _ in range(20))


def nothing(note, folder):
    note("")


def kept(note, folder):
    with devices.memory_kept():
        note("")


def fit(note, folder):
    options = {"method": "supervised", "schedule": SCHEDULE, "estimate": "none"}
    handful.fit(stripes(), **options, reporter=Reporter(say=note))


def label_free(note, folder):
    pretrain(stripes(), "simclr", schedule=SCHEDULE, out=folder / "pre", say=note)


def embed(note, folder):
    def track(items, what, total=None):
        note(what)
        return items

    features(stripes(), BackboneSpec("small", {"base": 8}).make(1, 8), 8, track=track)


JOBS = {job.__name__: job for job in (nothing, kept, fit, label_free, embed)}


def most_during(job, folder):
    """The most `faults` at any moment of the job, in a new process."""
    command = [sys.executable, __file__, job, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow  # each in a process of its own
@pytest.mark.parametrize("job", [name for name in JOBS if name != "nothing"])
def test_the_system_clears_large_blocks_for_the_first_few_only(job, usual, tmp_path):
    assert most_during(job, tmp_path) < 100 < usual


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    found = most_during("nothing", tmp_path_factory.mktemp("nothing"))
    if found < 1_000:
        pytest.skip("the system's pages are large here")
    return found


def test_the_outermost_gives_the_memory_back():
    with devices.memory_kept():
        with devices.memory_kept():
            torch.zeros(64 * MIB)
        inside = resident()
        assert fewest_faults() < 1_000
    assert inside - resident() > 200 * MIB


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    during = []
    JOBS[sys.argv[1]](lambda text: during.append(fewest_faults()), Path(sys.argv[2]))
    print(max(during))
