import io
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from handful.data import cache, cache_entries, decode, store
from handful.data.sources import load
from handful.errors import HandfulError
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
def inspected(monkeypatch):
    """Names of the inspected files, in order."""
    names = []
    really_inspect = decode.inspect

    def inspect(path):
        names.append(f"{path.parent.name}/{path.name}")
        return really_inspect(path)

    monkeypatch.setattr(decode, "inspect", inspect)
    return names


def only(folder, kind):
    [path] = (folder / kind).glob("*.npz" if kind == "manifests" else "*.npy")
    return path


def test_files_are_inspected_once_until_they_change(own_cache, folder, inspected):
    before = load(folder).hash
    assert len(inspected) == 6
    assert load(folder).hash == before
    assert len(inspected) == 6
    save(folder / "cat" / "1.png", seed=50)
    os.utime(folder / "cat" / "1.png", ns=(0, 10**18))
    assert load(folder).hash != before
    assert inspected[6:] == ["cat/1.png"]


def test_pixels_are_decoded_again_when_a_file_changes(own_cache, folder):
    before = load(folder).at(9).clone()
    save(folder / "cat" / "1.png", seed=50)
    os.utime(folder / "cat" / "1.png", ns=(0, 10**18))
    after = load(folder).at(9)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_a_broken_file_is_tried_again(own_cache, folder, inspected):
    (folder / "cat" / "9.png").touch()
    assert len(load(folder)) == len(load(folder)) == 6
    assert inspected[7:] == ["cat/9.png"]


def with_arrays(content, **changes):
    """The content of an npz file with changed arrays."""
    arrays = dict(np.load(io.BytesIO(content)))
    file = io.BytesIO()
    np.savez(file, **arrays | {name: change(arrays[name]) for name, change in changes.items()})
    return file.getvalue()


def with_version(about):
    told = json.loads(about.tobytes())
    return np.frombuffer(json.dumps({**told, "version": "nonsense"}).encode(), np.uint8)


BAD_MANIFESTS = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "not a manifest": lambda content: b'{"version": "nonsense"}',
    "a byte of a name": lambda content: content.replace(b"cat/1.png", b"cat/2.png"),
    "another version": lambda content: with_arrays(content, about=with_version),
    "fewer rows": lambda content: with_arrays(content, grey=lambda grey: grey[1:]),
    "times of another shape": lambda content: with_arrays(content, stamps=lambda all: all[:, :1]),
    "numbers of another kind": lambda content: with_arrays(content, sizes=lambda all: all * 1.0),
    "unknown treatments": lambda content: with_arrays(content, notes=lambda notes: notes + 1),
}


@pytest.mark.parametrize("change", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
def test_a_bad_manifest_is_rebuilt(own_cache, folder, inspected, change):
    before = load(folder).hash
    path = only(own_cache, "manifests")
    good = path.read_bytes()
    path.write_bytes(change(good))
    assert path.read_bytes() != good
    assert load(folder).hash == before
    assert len(inspected) == 12
    assert path.read_bytes() == good


def test_a_manifest_keeps_what_was_found(own_cache, folder):
    """Facts that few files have, too: transparency, 16 bits, one colour, names out of Unicode."""
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 50)
    deep.save(folder / "cat" / "deep.png")
    Image.new("RGBA", (9, 7), (9, 9, 9, 128)).save(folder / "dog" / "blank.png")
    os.rename(os.fsencode(folder / "dog" / "0.png"), os.fsencode(folder) + b"/dog/\xff.png")
    first, second = load(folder), load(folder)
    assert second.hash == first.hash and second.value_range == first.value_range
    assert second.value_range is not None
    assert second.names == first.names and "dog/\udcff.png" in second.names
    for name in ("sizes", "grey", "blank", "deep", "fingerprints", "stamps"):
        assert np.array_equal(getattr(second.store, name), getattr(first.store, name)), name
    assert second.store.notes == first.store.notes
    assert {("16-bit",), ("alpha",), ()} == set(second.store.notes)
    assert second.store.blank.sum() == 1 and second.store.deep.sum() == 1


def test_files_that_come_and_go_leave_the_manifest_right(own_cache, folder, inspected):
    load(folder)
    (folder / "cat" / "0.png").unlink()
    save(folder / "cat" / "05.png", seed=7)
    found = load(folder)
    assert inspected[6:] == ["cat/05.png"]
    fresh = {name: decode.inspect(folder / name) for name in found.names}
    for row, name in enumerate(found.names):
        assert found.store.fingerprints[row].tobytes() == fresh[name].fingerprint
    del inspected[:]
    load(folder)
    assert not inspected


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


def test_concurrent_loads_build_the_cache_once(own_cache, folder, inspected):
    built, together = [], threading.Barrier(4)

    def track(items, total, what):
        built.append(what)
        return items

    def open_it(_):
        together.wait()
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


def test_temporary_files_of_a_killed_process_are_removed_by_the_next_build(tmp_path):
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


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that were decoded to a working size, in order."""
    names = []
    really_read = decode.read

    def read(path, *how):
        names.append(path.name)
        return really_read(path, *how)

    monkeypatch.setattr(decode, "read", read)
    return names


def test_one_new_image_is_decoded_and_the_others_are_known(own_cache, folder, decoded):
    before = load(folder).at(9).clone()
    decoded.clear()
    save(folder / "cat" / "new.png", seed=50)
    after = load(folder).at(9)
    assert decoded == ["new.png"]
    assert torch.equal(after[[0, 1, 2, 4, 5, 6]], before)
    assert (after[3].numpy() == decode.read(folder / "cat" / "new.png", 9, "crop", 3)).all()
    only(own_cache, "pixels")  # the array of six images was removed


def test_images_are_taken_from_several_sets_whatever_their_names(own_cache, tmp_path, decoded):
    first = class_folder(tmp_path / "first")
    second = tmp_path / "second"
    for number in range(3):
        save(second / f"{number}.png", seed=200 + number)
    load(first).at(9)
    load(second, labeled=False).at(9)
    both = tmp_path / "both"
    for path in [*first.rglob("*.png"), *second.rglob("*.png")]:
        place = both / f"{path.parent.name}-{path.name}"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    decoded.clear()
    images = load(both, labeled=False)
    pixels = images.at(9)
    assert decoded == []
    for name, found in zip(images.names, pixels.numpy(), strict=True):
        assert (found == decode.read(both / name, 9, "crop", 3)).all(), name


def test_pixels_made_otherwise_are_not_taken(own_cache, folder, decoded):
    load(folder).at(9)
    save(folder / "cat" / "new.png", seed=50)
    for how in ({"size": 10}, {"size": 9, "aspect": "pad"}, {"size": 9, "channels": 1}):
        decoded.clear()
        load(folder).at(**how)
        assert len(decoded) == 7, how
    decoded.clear()
    for how in ({"size": 9}, {"size": 9, "aspect": "pad"}, {"size": 9, "channels": 1}) * 2:
        load(folder).at(**how)
    assert decoded == ["new.png"]  # both sizes are kept


def test_a_damaged_array_of_another_set_is_passed_over(own_cache, folder, decoded):
    load(folder).at(9)
    path = only(own_cache, "pixels")
    path.write_bytes(path.read_bytes()[:-1])
    save(folder / "cat" / "new.png", seed=50)
    decoded.clear()
    load(folder).at(9)
    assert len(decoded) == 7


def test_the_cache_is_where_the_system_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.delenv("HANDFUL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if sys.platform == "linux":
        assert cache.cache_folder() == tmp_path / "home" / ".cache" / "handful"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache.cache_folder() == tmp_path / "xdg" / "handful"
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "own"))
    assert cache.cache_folder() == tmp_path / "own"


def test_without_a_home_the_message_says_what_to_set(monkeypatch):
    def no_home(*_, **__):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HANDFUL_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    with pytest.raises(HandfulError, match="no place for a cache .*set HANDFUL_CACHE"):
        cache.cache_folder()


def aged(folder, kind, name="*", used=0):
    """Make the entries of a kind look unused for long, by a process that has ended."""
    for path in (folder / kind).glob(name):
        os.utime(path, (used, used))
    for session in cache._sessions.values():
        session.entries.clear()
        session.listed.write_text("")


def test_beyond_the_limit_the_least_recently_used_entries_are_removed_with_a_warning(
    own_cache, tmp_path, monkeypatch, caplog
):
    old, new = (class_folder(tmp_path / name) for name in ("old", "new"))
    save(new / "cat" / "0.png", seed=90)
    load(old).at(9)
    gone = only(own_cache, "pixels")
    aged(own_cache, "pixels", used=60)  # used before the stage, which is removed last all the same
    stage = own_cache / "pretrained" / ("0" * 32)
    write_text(stage / "pretrained.json", "{}")
    aged(own_cache, "pretrained")
    monkeypatch.setenv("HANDFUL_CACHE_LIMIT", "6kB")
    load(new).at(9)
    assert not gone.exists() and stage.exists()
    assert "removed what was used longest ago" in caplog.text and "6.0 kB" in caplog.text
    load(new).at(20)  # this process uses the first array; the stage is removed last, with a warning
    assert not stage.exists()
    assert len(list((own_cache / "pixels").glob("*.npy"))) == 2
    assert "1 self-supervised" in caplog.text


USE_IT = "import pathlib, sys; from handful.data.cache import used; " \
    "used(pathlib.Path(sys.argv[1])); print(flush=True); input()"  # fmt: skip


def test_entries_that_another_running_process_uses_stay(own_cache, folder):
    load(folder).at(9)
    path = only(own_cache, "pixels")
    aged(own_cache, "pixels")
    command = [sys.executable, "-c", USE_IT, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert cache_entries.clear({"pixels"})[0] == []
        assert path.exists()
        other.communicate(b"\n")
    assert [entry.kind for entry in cache_entries.clear({"pixels"})[0]] == ["pixels"]


def test_clearing_removes_only_what_is_the_caches_own(own_cache, folder, handful):
    load(folder).at(9)
    aged(own_cache, "pixels")
    mine = [own_cache / "holiday.jpg", own_cache / "pixels" / "holiday.npy"]
    mine += [own_cache / "features" / "notes" / "a.safetensors", own_cache / "data" / "MNIST"]
    mine += [own_cache / "features" / ("a" * 32) / "mine.txt"]
    for path in mine:
        write_text(path, "mine")
    status, out, err = handful("cache", "clear", "--all")
    assert status == 0 and "removed" in out
    assert all(path.read_text() == "mine" for path in mine)
    assert [p.name for p in (own_cache / "pixels").iterdir()] == ["holiday.npy"]


def test_a_folder_of_other_files_is_not_marked_as_a_cache(own_cache, folder):
    own_cache.mkdir()
    (own_cache / "holiday.jpg").touch()
    load(folder).at(9)
    assert not (own_cache / "CACHEDIR.TAG").exists()
    (own_cache / "holiday.jpg").unlink()
    load(folder).at(10)
    tag = (own_cache / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


@pytest.mark.thorough
def test_the_cache_is_listed(own_cache, folder, handful, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE_LIMIT", "1.5GB")
    load(folder).at(9)
    status, out, _ = handful("cache", "--json")
    found = json.loads(out)
    assert status == 0 and found["location"] == str(own_cache) and found["limit"] == 1.5e9
    kinds = {entry["kind"]: entry for entry in found["entries"]}
    assert kinds.keys() == {"manifests", "pixels"}
    assert kinds["pixels"]["bytes"] == only(own_cache, "pixels").stat().st_size
    assert kinds["pixels"]["source"] == str(folder) and kinds["pixels"]["in_use"]
    status, out, _ = handful("cache")
    assert status == 0 and "pixels" in out and "1.5 GB" in out


def test_clearing_may_spare_recently_used_entries(own_cache, folder, handful):
    load(folder).at(9)
    aged(own_cache, "nothing")
    assert handful("cache", "clear", "--older-than", "30d")[0] == 0
    path = only(own_cache, "pixels")
    aged(own_cache, "pixels")
    assert handful("cache", "clear", "--older-than", "30d", "--pixels")[0] == 0
    assert not path.exists()
    only(own_cache, "manifests")


@pytest.mark.parametrize("text", ["much", "10 apples", "-1GB"])
def test_a_limit_that_is_no_amount_is_refused(monkeypatch, text):
    monkeypatch.setenv("HANDFUL_CACHE_LIMIT", text)
    with pytest.raises(HandfulError, match="write it as 10GB or 500MB"):
        cache_entries.limit()
