"""Fixtures of all tests: a cache of their own, few threads, real data if present."""

import itertools
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hypothesis fails examples that take 0.2 s, as any may on a busy machine: no deadline.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")


def pytest_addoption(parser):
    about = "seconds that the clock jumps by whenever it is looked at: what fails depends on it"
    parser.addoption("--jump", type=float, default=0.0, help=about)


def pytest_configure(config):
    if step := config.getoption("--jump"):
        plain, looks = time.perf_counter, itertools.count(1)
        time.perf_counter = lambda: plain() + step * next(looks)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    before = os.environ.get("HANDFUL_CACHE")
    os.environ["HANDFUL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["HANDFUL_CACHE"]
    else:
        os.environ["HANDFUL_CACHE"] = before


@pytest.fixture(scope="session")
def data_root():
    """The folder of public data sets; tests that need it are skipped without it."""
    root = os.environ.get("HANDFUL_DATA")
    if not root or not (Path(root) / "MNIST").is_dir():
        pytest.skip("set HANDFUL_DATA to a folder with MNIST/raw and the image folders")
    return Path(root)


@pytest.fixture
def handful(monkeypatch, capsys):
    """A function that runs a command and returns (exit status, stdout, stderr)."""

    from handful import cli

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["handful", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as leaving:
            status = leaving.code or 0
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


@pytest.fixture
def steady(monkeypatch):
    """Assume that steps last as long as they were timed: no training is rescheduled."""
    monkeypatch.setattr("handful.training.time_limit.TimeLimit.reschedule", lambda *_: None)


class Clock:
    """A clock that a test moves: `clock.now += seconds`."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Replace the performance counter by a `Clock`, so that a busy machine has no effect."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    return clock


@pytest.fixture
def in_the_foreground():
    """Handle Ctrl-C as in a terminal; tests that a script starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
