"""SIGKILL and a full disk during labelling: are acknowledged labels lost, are files torn?

    python -m benchmarks run label_kills --kills 30

A session is killed after a random number of answers, also in the middle of one, and started again;
after each start every answer that was acknowledged must be there, and `labels.csv` must be whole
whenever it is looked at. Then the same on a disk of 256 KB that fills up.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.lib import arguments, record
from benchmarks.lib.chromium import labelling, scratch
from handful.csv_files import read_csv
from handful.labeling.journal import Journal
from handful.labeling.marks import Marks

IMAGES = 3_000


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--draw", type=int, default=0)
    options = parser.parse_args()
    work = scratch()
    photos = tiny_photos(work / "photos")
    figures = kill_many(photos, work, options.kills, random.Random(options.draw))
    figures |= full_disk(photos, scratch())
    record.append("label", "kills", "final", figures)
    print(figures)
    shutil.rmtree(work, ignore_errors=True)


def tiny_photos(folder: Path) -> Path:
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = draws.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")
    return folder


class Sender:
    """Answers images as the page does, and knows which answers were acknowledged."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, str] = {}
        self.sent: dict[int, set[str]] = {}
        self.refused = 0

    def enter(self, address: str) -> None:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        opener.open(address, timeout=30).read()
        self.base, self.open = address.split("/?")[0], opener.open

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.base + path,
            json.dumps(body).encode(),
            {"content-type": "application/json", "origin": self.base},
        )
        with self.open(request, timeout=30) as answer:
            return json.loads(answer.read())

    def answer(self, number: int, label: str) -> None:
        self.sent.setdefault(number, set()).add(label)
        item = {"number": number, "kind": "label", "label": label, "seen": "blind"}
        self.post("/api/answer", {"id": f"{number}{label}{time.time_ns()}", "items": [item]})
        self.acknowledged[number] = label


def kill_many(photos: Path, work: Path, kills: int, draws: random.Random) -> dict[str, Any]:
    sender, torn, looked, lost = Sender(), 0, 0, 0
    for kill in range(kills):
        with labelling(photos, work) as (process, address, _):
            sender.enter(address)
            lost += missing(work, sender)
            ended = threading.Event()
            watched: list[int] = [0, 0]
            watcher = threading.Thread(target=watch, args=(work / "labels.csv", ended, watched))
            watcher.start()
            threading.Timer(
                draws.uniform(0.05, 2.5), process.send_signal, (signal.SIGKILL,)
            ).start()
            try:
                for _ in range(100_000):
                    sender.answer(
                        draws.randrange(IMAGES), draws.choice(["cat", "dog", "Bär", "猫"])
                    )
            except (OSError, urllib.error.URLError, ValueError):
                pass
            process.wait()
            ended.set()
            watcher.join()
            looked, torn = looked + watched[0], torn + watched[1]
        print(kill, len(sender.acknowledged), "lost", lost, "torn", torn, flush=True)
    with labelling(photos, work):
        lost += missing(work, sender)
    return {"kills": kills, "acknowledged": len(sender.acknowledged), "lost": lost,
            "label_files_looked_at": looked, "torn": torn}  # fmt: skip


def missing(work: Path, sender: Sender) -> int:
    """Acknowledged labels that the journal lacks; a later one that was sent may have won."""
    marks = Marks()
    for line in (work / "labels.csv.journal").read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            marks.apply(json.loads(line))
    found = marks.labeled()
    return sum(
        found.get(f"{number:05d}.png") not in sender.sent[number]
        or (len(sender.sent[number]) == 1 and found[f"{number:05d}.png"] != label)
        for number, label in sender.acknowledged.items()
    )


def watch(path: Path, ended: threading.Event, watched: list[int]) -> None:
    """Read the label file again and again: [times, times that it was not whole]."""
    while not ended.is_set():
        if path.exists():
            watched[0] += 1
            try:
                rows = read_csv(path)
                watched[1] += any(row["label"] not in ("cat", "dog", "Bär", "猫") for row in rows)
            except FileNotFoundError:
                pass
            except Exception:
                watched[1] += 1
        time.sleep(0.01)


def full_disk(photos: Path, work: Path) -> dict[str, Any]:
    """Fill a disk of 256 KB with labels; then make room, and go on."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(work)], check=True)
    ballast = work / "ballast"
    try:
        ballast.write_bytes(b"x" * 180 * 1024)
        sender = Sender()
        with labelling(photos, work) as (process, address, _):
            sender.enter(address)
            for number in range(IMAGES):
                try:
                    sender.answer(number, "cat")
                except urllib.error.HTTPError as error:
                    assert error.code == 507, error.code
                    sender.refused += 1
                    if sender.refused == 20:
                        break
            before = len(sender.acknowledged)
            lost = missing(work, sender)
            ballast.unlink()
            for number in range(before, before + 50):
                sender.answer(number, "dog" if number not in sender.acknowledged else "cat")
            process.send_signal(signal.SIGINT)
            process.wait()
        rows = {row["file"] for row in read_csv(work / "labels.csv")}
        journal = Journal(work / "labels.csv.journal")
        journal.close()
        return {
            "full_disk_acknowledged": before,
            "full_disk_refused": sender.refused,
            "full_disk_lost": lost + len(sender.acknowledged.keys() - {int(r[:5]) for r in rows}),
            "after_making_room": len(sender.acknowledged) - before,
        }
    finally:
        subprocess.run(["umount", str(work)], check=False)
        os.rmdir(work)


if __name__ == "__main__":
    main()
