import signal
import time

import pytest

from soon import Hang, soon


def test_endless_computing_is_ended():
    before = signal.getsignal(signal.SIGPROF)
    with pytest.raises(Hang), soon(0.05):
        while True:
            pass
    assert signal.getsignal(signal.SIGPROF) is before
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_waiting_for_the_processor_is_not_ended():
    before = time.monotonic()
    with soon(0.05):
        time.sleep(0.2)
    assert time.monotonic() - before >= 0.2


def test_endless_waiting_is_ended_on_request():
    with pytest.raises(Hang), soon(waiting=1):
        signal.pause()
