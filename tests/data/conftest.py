"""Fixtures of sources that are no folder."""

import fsspec
import pytest

from handful.data.objects import address


@pytest.fixture
def waited(monkeypatch):
    """The seconds that reads would have waited before they are done again; nobody waits."""
    seconds = []
    monkeypatch.setattr(address.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def bucket(tmp_path):
    """The address of an empty place in memory, and its file system."""
    system = fsspec.filesystem("memory")
    place = f"/{tmp_path.name}"
    yield f"memory://{place}", system
    if system.exists(place):
        system.rm(place, recursive=True)
