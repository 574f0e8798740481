import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from handful.data import cache, scan, store
from handful.data.sources import load
from handful.files import beside, write_tensors, write_text
from image_files import class_folder, save


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return class_folder(tmp_path / "photos")


@pytest.fixture
def looked_at(monkeypatch):
    """Names of the files that were decoded to inspect them."""
    names = []
    really_inspect = scan._inspect

    def inspect(root, file):
        names.append(file.name)
        return really_inspect(root, file)

    monkeypatch.setattr(scan, "_inspect", inspect)
    return names


def only(folder, kind):
    [path] = (folder / kind).glob("*.json" if kind == "manifests" else "*.npy")
    return path


def test_files_are_looked_at_once_until_they_change(own_cache, folder, looked_at):
    before = load(folder).hash
    assert len(looked_at) == 6
    assert load(folder).hash == before
    assert len(looked_at) == 6
    save(folder / "cat" / "1.png", seed=50)
    os.utime(folder / "cat" / "1.png", ns=(0, 10**18))
    assert load(folder).hash != before
    assert looked_at[6:] == ["cat/1.png"]


def test_pixels_are_decoded_again_when_a_file_changes(own_cache, folder):
    before = load(folder).at(9).clone()
    save(folder / "cat" / "1.png", seed=50)
    os.utime(folder / "cat" / "1.png", ns=(0, 10**18))
    after = load(folder).at(9)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_a_broken_file_is_tried_again(own_cache, folder, looked_at):
    (folder / "cat" / "9.png").touch()
    assert len(load(folder)) == len(load(folder)) == 6
    assert looked_at[7:] == ["cat/9.png"]


BAD_MANIFESTS = {
    "cut short": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "another version": lambda text: text.replace('"version": [1', '"version": [0'),
    "not a manifest": lambda text: '{"version": "nonsense"}',
    "rows of another shape": lambda text: json.dumps({**json.loads(text), "files": [[1, 2]]}),
}


@pytest.mark.parametrize("change", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
def test_a_bad_manifest_is_rebuilt(own_cache, folder, looked_at, change):
    before = load(folder).hash
    path = only(own_cache, "manifests")
    good = path.read_text()
    path.write_text(change(good))
    assert path.read_text() != good
    assert load(folder).hash == before
    assert len(looked_at) == 12
    assert path.read_text() == good


BAD_PIXELS = {
    "cut short": lambda content: content[:-1],
    "cut in the header": lambda content: content[:20],
    "empty": lambda content: b"",
    "not an array": lambda content: b"PK\x03\x04 not an array",
    "another shape": lambda content: content.replace(b"(6, 3, 9, 9)", b"(6, 9, 9, 3)"),
}


@pytest.mark.parametrize("limit", [10, 2**30])
@pytest.mark.parametrize("change", BAD_PIXELS.values(), ids=BAD_PIXELS.keys())
def test_bad_cached_pixels_are_rebuilt(own_cache, folder, monkeypatch, change, limit):
    monkeypatch.setattr(store, "MEMORY_LIMIT", limit)
    before = load(folder).at(9).clone()
    path = only(own_cache, "pixels")
    good = path.read_bytes()
    path.write_bytes(change(good))
    assert path.read_bytes() != good
    assert torch.equal(load(folder).at(9), before)
    assert path.read_bytes() == good


def test_pixels_of_another_version_are_not_used(own_cache, folder, monkeypatch):
    load(folder).at(9)
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    load(folder).at(9)
    assert len(list((own_cache / "pixels").glob("*.npy"))) == 2


def test_two_at_once_build_once(own_cache, folder, looked_at):
    built = []

    def track(items, total, what):
        built.append(what)
        time.sleep(0.05)  # long enough for the other to arrive
        return items

    def open_it(_):
        return load(folder, track=track).at(10, track=track)

    with ThreadPoolExecutor(4) as pool:
        first, *rest = pool.map(open_it, range(4))
    assert all(torch.equal(first, other) for other in rest)
    assert sorted(built) == ["decoding", "looking at files"]


def test_a_cache_that_cannot_be_written_is_explained(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError) as error:
        load(folder)
    assert str(error.value) == (
        f"cannot write to the cache folder {tmp_path / 'file' / 'manifests'}: Not a directory; "
        f"free some space or set HANDFUL_CACHE to another folder"
    )


def test_an_interrupted_write_leaves_nothing(tmp_path):
    path = tmp_path / "place" / "file"
    with pytest.raises(KeyboardInterrupt), beside(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with beside(path) as temporary:
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"


def test_what_a_killed_process_left_of_a_file_goes_when_it_is_built_again(tmp_path):
    other = tmp_path / ".other.0123abcd.part"
    for left in (tmp_path / ".file.0123abcd.part", tmp_path / ".file.4567cdef.part", other):
        left.touch()
    with cache.locked(tmp_path / "file"):
        assert list(tmp_path.glob("*.part")) == [other]


def test_files_may_be_read_by_whom_the_umask_allows(tmp_path):
    mask = os.umask(0o022)
    try:
        write_tensors(tmp_path / "tensors", {"a": torch.zeros(2)})
        write_text(tmp_path / "text", "a")
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_a_full_disk_is_explained(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(ValueError, match="cannot write .*: File too large; free some space"):
            with cache.explained(tmp_path / "file"), beside(tmp_path / "file") as temporary:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
                temporary.write_bytes(bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


OPEN_IT = "import sys; from handful import load; images = load(sys.argv[1]); images.at(24); " \
    "print(images.hash, images.at(24).sum().item())"  # fmt: skip


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_ends_the_same(own_cache, tmp_path):
    folder = class_folder(tmp_path / "photos", per_class=2000)
    command = [sys.executable, "-c", OPEN_IT, str(folder)]
    began = time.monotonic()
    expected = subprocess.run(command, capture_output=True, check=True).stdout
    seconds = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(20):
        for path in own_cache.glob("*/*"):
            if moments.random() < 0.5:
                path.unlink()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 1) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert subprocess.run(command, capture_output=True, check=True).stdout == expected


def _sum(folder):
    return int(load(folder).at(24).sum())


@pytest.mark.slow
def test_two_processes_may_build_at_once(own_cache, tmp_path):
    folder = class_folder(tmp_path / "photos", per_class=500)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_sum, [folder, folder])
    assert first == second == _sum(folder)
