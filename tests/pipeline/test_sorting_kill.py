"""`predict --into` killed anywhere: nothing is lost or half written, and the same call ends it.

A process sorts a second time, by a newer run: it moves, copies, keeps, numbers, and removes a
folder. It is struck from within, just before one of its changes to the disk, or between two parts
of a copy. Processes are forked from one that has imported torch already.
"""

import multiprocessing
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

from image_files import save
from strike import Strike, command, plain, struck

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["handful.cli", "handful.pipeline.run", "handful.data.sources"])
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
LONG = 800  # seconds for what takes two, on a machine with much else to do


def attempt(place: Path, strike: Strike, job, *arguments) -> int:
    """Exit status: negative for a signal."""
    said = str(place.parent / f"{place.name}.said")
    process = PROCESSES.Process(target=struck, args=(strike, str(place), said, job, arguments))
    process.start()
    process.join(LONG)
    if process.is_alive():
        process.kill()
        pytest.fail(f"no end after {LONG} s")
    return process.exitcode


def files(root: Path) -> dict[str, bytes]:
    """Every file below `root`, and empty folders."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def lost(target: Path, before: Path, originals: Path, own: dict[str, bytes]) -> Counter:
    """Count changed originals, lost earlier copies, and partial files."""
    found = files(target)
    copies = {name: data for name, data in found.items() if not Path(name).name.startswith(".")}
    whole = set(files(originals).values()) | set(own.values()) | {b""}  # b"": an empty folder
    torn = [
        n for n, data in copies.items() if data not in whole or not (data or (target / n).is_dir())
    ]
    earlier = {data for name, data in files(before).items() if Path(name).parts[1:]}
    return Counter(
        own=sum(found.get(name) != data for name, data in own.items()),
        copies=len(earlier - set(copies.values())),
        torn=len(torn),
    )


def kill_and_finish(
    root: Path, own: dict[str, bytes], moments: list[tuple[int, int]], job, words
) -> Counter:
    """From the same beginning, each time: kill, look, finish by the same call, compare.

    Args:
        words: the arguments of the job for a target.

    Returns: the moments, and what was lost at any of them.
    """
    originals, straight = files(root / "photos"), files(root / "straight")
    total: Counter = Counter()
    for number, (change, kind) in enumerate(moments):
        target = root / f"struck-{number}"
        shutil.copytree(root / "before", target)
        assert attempt(target, Strike(change, kind), job, *words(target)) == -kind
        gone = lost(target, root / "before", root / "photos", own)
        ended = attempt(target, Strike(), job, *words(target))
        gone["unfinished"] = ended != 0 or files(target) != straight
        now = files(root / "photos")
        gone["originals"] = sum(now.get(name) != data for name, data in originals.items())
        if +gone:
            print(f"struck before change {change} by {kind}: {dict(+gone)}")
        total += gone + Counter(moments=1)
        shutil.rmtree(target)
    return total


def changes(place: Path) -> int:
    return int((place.parent / f"{place.name}.said").read_text())


@pytest.mark.thorough
def test_sorting_killed_anywhere_is_finished_by_the_same_call(tmp_path):
    for number in range(5):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(b"%d" % number * 450)
    before, straight = tmp_path / "before", tmp_path / "straight"
    earlier = {"0.jpg": "fox", "1.jpg": "fox", "2.jpg": "hare"}
    plain(str(tmp_path / "photos"), str(before), earlier)
    own = {"hare/1.jpg": b"own", "hare/4.jpg": b"own, too", "notes.txt": b"own"}
    for name, data in own.items():
        (before / name).write_bytes(data)
    labels = {"0.jpg": "owl", "1.jpg": "hare", "2.jpg": "hare", "3.jpg": "owl", "4.jpg": "hare"}

    def words(target: Path) -> tuple:
        return str(tmp_path / "photos"), str(target), labels

    shutil.copytree(before, straight)
    assert attempt(straight, Strike(), plain, *words(straight)) == 0
    assert sorted(name for name in files(straight) if not name.startswith(".")) == [
        "hare/1 (2).jpg",
        "hare/1.jpg",
        "hare/2.jpg",
        "hare/4 (2).jpg",
        "hare/4.jpg",
        "notes.txt",
        "owl/0.jpg",
        "owl/3.jpg",
    ]
    assert changes(straight) >= 30
    moments = [(n, SIGNALS[n % 2]) for n in range(1, changes(straight) + 1, 5)]
    found = kill_and_finish(tmp_path, own, moments, plain, words)
    assert found == Counter(moments=len(moments))


def _photos(root: Path, numbers: range, swapped: bool = False) -> Path:
    """Two classes of stripes, optionally with exchanged names."""
    for number in numbers:
        tall = bool(number % 2)
        pixels = torch.randint(60, (12, 12), generator=torch.Generator().manual_seed(number))
        wave = (torch.arange(12) // 2 % 2 * 150).expand(12, 12)
        name = "down" if tall != swapped else "across"
        pixels = pixels + (wave if tall else wave.T)
        save(root / name / f"{number:03}.png", pixels.byte().numpy())
    return root


def strike_predict_into(root: Path, count: int) -> Counter:
    """`predict --into` struck at moments spread over all of it, by SIGKILL and SIGTERM in turn."""

    def run(*words) -> int:
        return attempt(root / "run", Strike(), command, *map(str, words))

    settings = ("--estimate", "none", "--size", "8", "--set", "steps=30", "--set", "batch=16")
    settings = ("--method", "supervised", "--precision", "fp32", *settings)
    for name, swapped in (("older", False), ("newer", True)):
        source = _photos(root / f"of-{name}", range(100, 116), swapped)
        assert run("fit", source, "--out", root / name, *settings) == 0
    photos, before, straight = (root / name for name in ("photos", "before", "straight"))
    _photos(photos, range(8))
    assert run("predict", root / "older", photos, "--into", before) == 0
    _photos(photos, range(8, 12))
    own = {"down/across_000.png": b"own", "notes.txt": b"own"}
    for name, data in own.items():
        (before / name).write_bytes(data)

    def words(target: Path) -> tuple:
        return "predict", str(root / "newer"), str(photos), "--into", str(target)

    shutil.copytree(before, straight)
    assert attempt(straight, Strike(), command, *words(straight)) == 0
    n = changes(straight)
    moments = [(1 + round(at * (n - 1) / (count - 1)), SIGNALS[at % 2]) for at in range(count)]
    return kill_and_finish(root, own, moments, command, words)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_predict_into_killed_at_forty_moments_is_finished_by_the_same_command(tmp_path):
    assert strike_predict_into(tmp_path, 40) == Counter(moments=40)
