"""A fit killed anywhere: the same command ends it, with the same bits, and nothing is left over.

Attempts run in processes of their own, forked from one that has imported torch already. A process
is struck from within: at its n-th change to the disk, so that scan, cache, training and saving are
all hit however fast the machine is, or after a while by the clock.
"""

import csv
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from handful.errors import HandfulError
from handful.files import read_json
from handful.pipeline.run import open_run
from handful.training.interrupt import graceful_stop
from image_files import save

pytestmark = pytest.mark.thorough

LONG = 800  # seconds for what takes two, on a machine with much else to do
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["handful.cli", "handful.pipeline.fit", "handful.data.sources"])
OUTSIDE = (os.O_WRONLY | os.O_RDWR | os.O_CREAT, ("os.rename", "os.remove", "os.mkdir", "os.rmdir"))


@dataclass(frozen=True)
class Strike:
    """A signal that a process sends itself."""

    change: int = 0  # just before this change to the disk, counted from 1; 0: by the clock
    seconds: float = 0.0  # after so much time
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Place:
    """One folder of images, one run folder, one cache."""

    root: Path
    photos: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    def start(self, strike: Strike | None = None, *options: str):
        words = ["fit", self.photos, "--out", self.run, "--precision", "fp32", *SETTINGS, *options]
        arguments = list(map(str, words)), str(self.root), strike
        self.root.mkdir(exist_ok=True)
        process = PROCESSES.Process(target=_command, args=arguments)
        process.start()
        return process

    def attempt(self, strike: Strike | None = None, *options: str) -> int:
        """Exit status: negative for a signal."""
        process = self.start(strike, *options)
        process.join(LONG)
        if process.is_alive():
            process.kill()
            pytest.fail(f"no end after {LONG} s: {self.said}")
        return process.exitcode

    @property
    def said(self) -> str:
        return (self.root / "said").read_text()

    @property
    def changes(self) -> int:
        """How often the last process changed the disk."""
        return int((self.root / "changes").read_text())


SETTINGS = ("--set", "steps=6", "--set", "batch=16", "--set", "backbone.base=8", "--size", "8")


def _command(words: list[str], root: str, strike: Strike | None) -> None:
    """Run `handful` with these arguments in this process, its output in a file."""
    with open(Path(root) / "said", "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ["HANDFUL_CACHE"] = str(Path(root) / "cache")
    torch.set_num_threads(1)
    # A script that runs the tests in the background leaves SIGINT ignored, and it is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from handful import cli
    from handful.training import history

    history.SAVE_EVERY = 0.0  # a checkpoint after every step: kills find training half done
    counter = _arm(root, strike)
    sys.argv = ["handful", *words]
    try:
        cli.main()
    finally:
        (Path(root) / "changes").write_text(str(counter[0]))


def _arm(root: str, strike: Strike | None) -> list[int]:
    """Count this process's changes to the files below `root`, and strike when it is time."""
    count = [0]
    flags, names = OUTSIDE

    def watch(event: str, arguments: tuple) -> None:
        changing = event in names or (event == "open" and (arguments[2] or 0) & flags)
        if changing and str(arguments[0]).startswith(root):
            count[0] += 1
            if strike and count[0] == strike.change:
                os.kill(os.getpid(), strike.signal)

    sys.addaudithook(watch)
    if strike and strike.seconds:
        threading.Timer(strike.seconds, os.kill, (os.getpid(), strike.signal)).start()
    return count


def _photos(root: Path, count: int) -> Path:
    """Two classes of stripes; a third of the images has no label, and there is a test part."""
    for number in range(count):
        part = ("train/across", "train/down", "train", "test/across", "test/down")[number % 5]
        tall = part.endswith("down") or (part == "train" and number % 2)
        pixels = torch.randint(60, (12, 12), generator=torch.Generator().manual_seed(number))
        wave = (torch.arange(12) // 2 % 2 * 150).expand(12, 12)
        pixels = pixels + (wave if tall else wave.T)
        save(root / part / f"{number:03}.png", pixels.byte().numpy())
    return root


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that was never killed."""
    return straight_run(tmp_path_factory.mktemp("straight"))


def straight_run(root: Path) -> Place:
    place = Place(root, _photos(root / "photos", 60))
    assert place.attempt() == 0, place.said
    return place


def assert_same_run(place: Place, straight: Place) -> None:
    ours, theirs = (load_file(p.run / "model.safetensors") for p in (place, straight))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert sorted(p.name for p in place.run.iterdir()) == sorted(
        p.name for p in straight.run.iterdir()
    )
    for name in ("labels.csv", "predictions.csv", "test.json"):
        assert (place.run / name).read_bytes() == (straight.run / name).read_bytes()
    ours, theirs = (read_json(p.run / "run.json") for p in (place, straight))
    assert all(ours[key] == theirs[key] for key in ("estimate", "test", "data", "fingerprint"))


def kill_and_finish(place: Place, straight: Place, kills: int, seed: int) -> None:
    """The same command again and again, killed `kills` times; once it ends, a new run begins."""
    rng = random.Random(seed)
    changes, finished = straight.changes, 0
    place = Place(place.root / "0", place.photos)
    while kills:
        change = rng.randrange(1, changes + 1)
        clock = rng.random() < 0.25
        strike = Strike(seconds=rng.uniform(0.05, 2)) if clock else Strike(change=change)
        status = place.attempt(strike)
        assert status in (-signal.SIGKILL, 0), place.said
        kills -= status != 0
        if status == 0:
            assert_same_run(place, straight)
            finished += 1
            place = Place(place.root.parent / str(finished), place.photos)
    assert place.attempt() == 0, place.said
    assert_same_run(place, straight)


def test_a_straight_run_leaves_every_label_and_no_temporary_file(straight):
    with open(straight.run / "labels.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 24
    with open(straight.run / "predictions.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 12
    names = {path.name for path in straight.run.iterdir()}
    assert {"run.json", "model.safetensors", "history.jsonl"} <= names
    assert not {name for name in names if name.startswith(".") or name == "checkpoint"}


def test_a_fit_killed_twice_ends_with_the_same_bits(straight, tmp_path):
    place = Place(tmp_path / "place", straight.photos)
    for change in (straight.changes // 2, straight.changes // 3):
        assert place.attempt(Strike(change=change)) == -signal.SIGKILL, place.said
    assert place.attempt() == 0, place.said
    assert_same_run(place, straight)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_fit_killed_at_twenty_random_moments_ends_with_the_same_bits(tmp_path):
    photos = _photos(tmp_path / "photos", 300)
    straight = Place(tmp_path / "straight", photos)
    assert straight.attempt() == 0, straight.said
    (tmp_path / "killed").mkdir()
    kill_and_finish(Place(tmp_path / "killed", photos), straight, kills=20, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["first", "last"])
def test_a_fit_killed_at_its_first_or_last_changes_ends_with_the_same_bits(
    where, straight, tmp_path
):
    """Acquiring the folder and saving the run take milliseconds: a kill hits each change."""
    n = straight.changes
    for change in range(1, 13) if where == "first" else range(n - 25, n + 1):
        place = Place(tmp_path / str(change), straight.photos)
        assert place.attempt(Strike(change=change)) == -signal.SIGKILL, place.said
        assert place.attempt() == 0, place.said
        assert_same_run(place, straight)


def test_a_killed_overwrite_goes_on_by_the_same_command(straight, tmp_path):
    place = Place(tmp_path / "place", straight.photos)
    assert place.attempt(None, "--seed", "1", "--estimate", "none") == 0, place.said
    for change in (2, 5, 8, 11):
        assert place.attempt(Strike(change=change), "--overwrite") == -signal.SIGKILL, place.said
    assert place.attempt(None, "--overwrite") == 0, place.said
    assert_same_run(place, straight)


def test_control_c_says_how_to_go_on_and_going_on_gives_the_same_bits(straight, tmp_path):
    place = Place(tmp_path / "place", straight.photos)
    strike = Strike(change=straight.changes // 2, signal=signal.SIGINT)
    assert place.attempt(strike) == 130
    assert "this goes on with it: handful fit" in place.said
    assert "Traceback" not in place.said
    assert place.attempt() == 0, place.said
    assert_same_run(place, straight)


def test_a_control_c_that_is_ignored_stays_so_while_training():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with graceful_stop() as asked_to_stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked_to_stop()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_process_is_refused_while_the_first_one_writes(straight, tmp_path):
    place = Place(tmp_path / "place", straight.photos)
    first = place.start(Strike(change=straight.changes // 2, signal=signal.SIGSTOP))
    while _state(first.pid) != "T":
        time.sleep(0.02)
    try:
        assert place.attempt() == 2
        assert "is being written by another process; wait until it has ended" in place.said
        assert place.said.count("Error:") == 1
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert first.exitcode == 0
    assert_same_run(place, straight)


def test_processes_started_at_once_leave_one_whole_run(straight, tmp_path):
    place = Place(tmp_path / "place", straight.photos)
    processes = [place.start() for _ in range(3)]
    for process in processes:
        process.join()
    statuses = sorted(process.exitcode for process in processes)
    assert statuses[0] == 0
    assert set(statuses) <= {0, 2}
    assert_same_run(place, straight)


def _state(pid: int) -> str:
    """The letter that Linux gives a process: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def strike_overwrites(root: Path, sent: int, moments: int) -> Counter:
    """--labels run/label-next.csv --after run --out run --overwrite, as a user types it, struck.

    Returns: the moments, and after how many labels or models were lost: typed labels that are in
    no table any more, a table of labels that is shorter, a run that cannot be opened.
    """
    place = Place(root / "place", _photos(root / "photos", 200))  # more to label than is typed
    assert place.attempt() == 0, place.said
    listed = place.run / "label-next.csv"
    again = ("--labels", str(listed), "--after", str(place.run), "--overwrite")
    rng, typed, found = random.Random(sent), set(), Counter()

    def type_one_more() -> None:
        if listed.exists():
            typed.discard(listed.read_text())  # what is typed now goes on top of it
            typed.add(_typed(listed, found["moments"]))

    type_one_more()
    assert place.attempt(None, *again) == 0, place.said
    changes, photos = place.changes, _contents(place.photos)
    while found["moments"] < moments:
        late = rng.random() < 0.5  # saving and taking the place are a few changes at the end
        change = rng.randrange(changes - 60, changes + 5) if late else rng.randrange(1, changes)
        type_one_more()
        status = place.attempt(Strike(change=change, signal=sent), *again)
        assert status in (0, -sent, 143), place.said
        found += Counter(moments=status != 0) + _lost(place.run, typed)
        found += Counter(originals=_contents(place.photos) != photos)
    type_one_more()  # the last attempt may have ended just before it was struck
    found["unfinished"] += place.attempt(None, *again) != 0
    if found["unfinished"]:
        print(place.said)
    return found + _lost(place.run, typed)


def _lost(run: Path, typed: set[str]) -> Counter:
    tables = {path.read_text() for path in run.rglob("*.csv")}
    try:
        opened = open_run(run).folder == run
    except HandfulError as error:
        print(error)
        opened = False
    rows = (run / "labels.csv").read_text().splitlines() if opened else []
    return Counter(labels=not typed <= tables or len(rows) < 1 + 24, models=not opened)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_an_overwrite_in_place_struck_at_twenty_moments_loses_no_label_and_no_model(sent, tmp_path):
    assert strike_overwrites(tmp_path, sent, 20) == Counter(moments=20)


def _typed(path: Path, number: int) -> str:
    """Type a label into a list, by hand, for the first image to train on; the whole text then."""
    rows = path.read_text().splitlines(keepends=True)
    at = next(at for at, row in enumerate(rows) if row.startswith("train/"))
    name, label, more = rows[at].split(",", 2)
    rows[at] = f"{name},across,{number} {more}"
    path.write_text("".join(rows))
    return path.read_text()


def test_a_termination_saves_says_so_and_going_on_gives_the_same_bits(straight, tmp_path):
    place = Place(tmp_path / "place", straight.photos)
    strike = Strike(change=straight.changes // 2, signal=signal.SIGTERM)
    assert place.attempt(strike) == 143
    assert "this goes on with it: handful fit" in place.said
    assert "Traceback" not in place.said
    assert place.attempt() == 0, place.said
    assert_same_run(place, straight)
