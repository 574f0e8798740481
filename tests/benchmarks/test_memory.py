"""Peak memory of a process that a benchmark starts."""

import subprocess
import sys

import numpy as np

from benchmarks.lib.memory import peak_mb
from benchmarks.lib.paths import ROOT


def test_the_peak_is_that_of_the_process_and_not_of_the_one_that_started_it():
    held = np.ones(600 * 2**17)  # 600 MB
    code = "from benchmarks.lib.memory import peak_mb; x = b'1' * 2**26; print(peak_mb())"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert 64 < float(told.stdout) < 300
    assert peak_mb() > held.nbytes / 2**20
