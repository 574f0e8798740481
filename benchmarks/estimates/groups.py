"""Whether images of one scene are found, and what that does to the estimate.

    python -m benchmarks run groups dev   --draws 10 --dry
    python -m benchmarks run groups final --draws 40

Scenes are photographs of a source, each seen by a camera that moves a little: a frame is a part of
the photograph, moved, brighter or darker, a bit blurred, and compressed again. A quiet camera makes
bursts, a livelier one tracks; plain scenes have one frame. A draw takes scenes at random and labels
six of ten of their frames ("doubled": two frames of each scene, all labelled). The truth is the
accuracy on the frames of all other scenes. The labelled frames are written as files, whose names
and EXIF say what the cell says:

    random   names of random letters
    numbers  a camera's running numbers: IMG_0001.jpg, ...
    tracks   the number of the scene and that of the frame: 00012_00007.jpg
    times    names of random letters, and the time in EXIF

`features` is fitted and estimated with the groups that `fit` would find, with none, and with the
true ones. "pairs" is the share of the pairs of labelled frames of one scene that are in one group;
"wrong" the share of labels that are in a group with a frame of another scene.

The cells "copies" ask what `handful data` finds of near-copies among 500 photographs: moved by up
to 3 % of the side, up to a tenth brighter or darker, compressed again.

Development: training images, or the first half of a source without a test part; final: the others.
A cell that has its line by the same code is not made again.
"""

import argparse
import hashlib
import io
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter

import handful
import handful.data.likeness as likeness
import handful.data.near_duplicates as near
from benchmarks.estimates.coverage import Fit, embedded, tuned
from benchmarks.lib import arguments, record
from handful.data.cache import data_folder
from handful.data.grouping import evidence, find, rules, signs
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.evaluation.accuracy_estimate import Estimate, estimate
from handful.evaluation.cross_validation import out_of_fold

SOURCES = ("cifar10-jpeg", "tin10", "sign-digits", "steel")
SCENES = 500
SIZE = 96  # pixels the network sees
SIDES = {"cifar10-jpeg": 32, "tin10": 64, "sign-digits": 100, "steel": 200}
LABELED = 0.6  # share of the frames of a scene that are labelled
PER_CLASS = 10  # labels, in the mean
DOUBLED = (0.1, 0.5, 1.0)
CODE = hashlib.sha256(
    b"".join(
        Path(module.__file__ or "").read_bytes()
        for module in (likeness, near, evidence, find, rules, signs)
    )
    + Path(__file__).read_bytes()
).hexdigest()[:16]


@dataclass(frozen=True)
class Camera:
    """How a camera moves: shares of the side, of the brightness; blur in 1/32 of the side."""

    shift: float
    zoom: float
    light: float
    blur: float
    seen: float  # share of the side of the photograph that a frame shows


CAMERAS = {
    "burst": Camera(0.03, 0.0, 0.08, 0.3, 0.92),
    "track": Camera(0.08, 0.12, 0.15, 0.6, 0.8),
    "plain": Camera(0.0, 0.0, 0.0, 0.0, 0.92),
    "copy": Camera(0.03, 0.0, 0.1, 0.0, 0.92),
}
# Cell -> the camera, and what names and EXIF say.
CELLS = {
    "doubled random": ("burst", "random"),
    "burst random": ("burst", "random"),
    "burst numbers": ("burst", "numbers"),
    "burst times": ("burst", "times"),
    "track random": ("track", "random"),
    "track numbers": ("track", "numbers"),
    "track tracks": ("track", "tracks"),
    "plain random": ("plain", "random"),
    "plain numbers": ("plain", "numbers"),
    "plain times": ("plain", "times"),
}


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames (F, ...) of scenes, in the order of the scenes."""

    pictures: list[Image.Image]
    scenes: np.ndarray
    labels: np.ndarray
    features: torch.Tensor
    classes: int


def main() -> None:
    options = parse()
    for source in options.sources:
        if "copies" in options.cells:
            for share in (0.0, *DOUBLED):
                finish(
                    source,
                    f"copies {share:.0%}",
                    options,
                    lambda s=source, x=share: copies(s, options, x),
                )
        for cell in options.cells:
            if cell in CELLS:
                finish(source, cell, options, lambda s=source, c=cell: draws(s, c, options))


def finish(source: str, cell: str, options: argparse.Namespace, made: Any) -> None:
    name = f"{source} {cell}"
    wanted = (name, options.part, CODE)
    lines = record.read("groups")
    if wanted in [(x["name"], x["kind"], x["settings"]["code"]) for x in lines]:
        print(f"{name}: has its line by the same code", flush=True)
        return
    begun = time.perf_counter()
    figures = made()
    print(name, json.dumps(figures), f"{time.perf_counter() - begun:.0f} s", flush=True)
    if not options.dry:
        record.append("groups", name, options.part, figures, settings={"code": CODE, "size": SIZE})


def copies(source: str, options: argparse.Namespace, share: float) -> dict[str, Any]:
    """What `near_duplicates` finds where a share of the photographs is there twice."""
    photographs, _ = pictures_of(source, options.part)
    generator = np.random.default_rng([first_seed(options), 3])
    plain = [moved(one, CAMERAS["plain"], generator, False) for one in photographs]
    doubled = round(share * len(plain))
    again = [moved(one, CAMERAS["copy"], generator) for one in photographs[:doubled]]
    grey = [
        np.asarray(one.convert("L").resize((32, 32), Image.Resampling.BOX)) for one in plain + again
    ]
    pairs = near.near_duplicates(torch.from_numpy(np.stack(grey))[:, None])
    right = sum(second == one + len(plain) for one, second, _ in pairs)
    return {
        "images": len(grey),
        "copies": doubled,
        "found": round(right / doubled, 4) if doubled else None,
        "false": round((len(pairs) - right) / len(grey), 4),
    }


def draws(source: str, cell: str, options: argparse.Namespace) -> dict[str, Any]:
    """The line of a cell, over all its draws."""
    kind, naming = CELLS[cell]
    frames = frames_of(source, kind, options.part)
    first = first_seed(options)
    rows = [
        run_draw(source, frames, cell, naming, options.part, seed)
        for seed in range(first, first + options.draws)
    ]
    figures: dict[str, Any] = {"draws": len(rows), "n": rows[0]["n"]}
    for key in rows[0]:
        found = [row[key] for row in rows if row[key] is not None]
        figures[key] = round(float(np.mean(found)), 4) if found else None
    return figures


def run_draw(
    source: str, frames: Frames, cell: str, naming: str, part: str, seed: int
) -> dict[str, Any]:
    """One draw: what was found, and the estimates beside the truth."""
    n = PER_CLASS * frames.classes
    kind, doubled = CELLS[cell][0], cell.startswith("doubled")
    chosen = drawn(frames, doubled, n, seed)
    scenes = frames.scenes[chosen]
    found = found_groups(frames, chosen, naming, seed)
    same = scenes[:, None] == scenes[None, :]
    together = found.groups[:, None] == found.groups[None, :]
    once = np.triu(np.ones_like(same), 1)
    row: dict[str, Any] = {
        "n": len(chosen),
        "scenes": len(np.unique(scenes)),
        "scenes_found": found.scenes,
        "pairs": (same & together & once).sum() / same[once].sum() if same[once].any() else None,
        "wrong": float((together & ~same).any(axis=1).mean()),
        "warned": float(found.likely is not None),
    }
    truth = None
    for arm, groups in (("auto", found.groups), ("none", None), ("given", scenes)):
        right, estimated = judged(source, frames.classes, part, kind, doubled, seed, key_of(groups))
        truth = right
        assert estimated.low is not None and estimated.high is not None
        row |= {
            f"covered_{arm}": float(estimated.low <= truth <= estimated.high),
            f"lower_{arm}": float(estimated.low <= truth),
            f"width_{arm}": estimated.high - estimated.low,
            f"gap_{arm}": (estimated.accuracy or 0.0) - truth,
        }
    row["truth"] = truth
    return row


def key_of(groups: np.ndarray | None) -> tuple[int, ...] | None:
    """Groups as a tuple, numbered as they come first: equal groups have equal tuples."""
    if groups is None or len(np.unique(groups)) == len(groups):
        return None
    number: dict[int, int] = {}
    return tuple(number.setdefault(int(group), len(number)) for group in groups)


@cache
def judged(
    source: str,
    classes: int,
    part: str,
    kind: str,
    doubled: bool,
    seed: int,
    groups: tuple[int, ...] | None,
) -> tuple[float, Estimate]:
    """The truth, and the estimate with these groups."""
    frames = frames_of(source, kind, part)
    chosen = drawn(frames, doubled, PER_CLASS * classes, seed)
    labels, seen = frames.labels[chosen], frames.features[chosen]
    fit: Fit = tuned("features", seen, labels, classes, seed)

    def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        return fit(seen[train], labels[train], classes, seed)(seen[held])

    given = None if groups is None else np.array(groups)
    out = out_of_fold(labels, classes, fit_and_predict, seed=seed, groups=given)
    rest = ~np.isin(frames.scenes, frames.scenes[chosen])
    predicted = fit(seen, labels, classes, seed)(frames.features[rest])
    truth = float((predicted.argmax(axis=1) == frames.labels[rest]).mean())
    return truth, estimate(out)


def drawn(frames: Frames, doubled: bool, n: int, seed: int) -> np.ndarray:
    """Positions of about `n` labelled frames: scenes at random, until there are enough."""
    generator = np.random.default_rng([seed, 1])
    chosen: list[int] = []
    for scene in generator.permutation(len(np.unique(frames.scenes))):
        own = np.flatnonzero(frames.scenes == scene)
        if doubled:
            chosen += own[:2].tolist() if len(own) > 1 else []
        elif len(own) == 1:
            chosen += own.tolist()
        else:
            chosen += own[generator.random(len(own)) < LABELED].tolist()
        if len(chosen) >= n:
            break
    return np.array(sorted(chosen))


def found_groups(frames: Frames, chosen: np.ndarray, naming: str, seed: int) -> find.Found:
    """The groups that `fit` finds, in the order of `chosen`, from files written for it."""
    generator = np.random.default_rng([seed, 2])
    order = generator.permutation(frames.scenes.max() + 1)  # in which the scenes were taken
    taken = np.lexsort((np.arange(len(frames.scenes)), order[frames.scenes]))
    number = np.empty(len(taken), int)
    number[taken] = np.arange(1, len(taken) + 1)
    begins = np.cumsum(generator.uniform(10, 600, len(order)))
    root = Path(tempfile.mkdtemp())
    names = []
    for at in chosen:
        scene = frames.scenes[at]
        frame = int((frames.scenes[:at] == scene).sum())
        stem = {
            "numbers": f"IMG_{number[at]:04d}",
            "tracks": f"{scene:05d}_{frame:05d}",
        }.get(naming, f"{generator.integers(2**40):010x}")
        names.append(f"{frames.labels[at]}/{stem}.jpg")
        path = root / names[-1]
        path.parent.mkdir(exist_ok=True)
        exif = Image.Exif()
        if naming == "times":
            when = begins[order[scene]] + 0.4 * frame
            stamp = np.datetime64("2024-05-01T08:00:00") + np.timedelta64(int(when), "s")
            exif.get_ifd(0x8769)[0x9003] = str(stamp).replace("-", ":").replace("T", " ")
            exif.get_ifd(0x8769)[0x9291] = f"{int(1000 * (when % 1)):03d}"
        frames.pictures[at].save(path, quality=95, exif=exif)
    images = handful.load(root)
    place = {name: at for at, name in enumerate(images.names)}
    found = find.find_groups(images[images.labeled])
    shutil.rmtree(root)
    groups = found.groups[[place[name] for name in names]]
    return find.Found(groups, found.signs, found.likely, found.likely_signs)


@cache
def frames_of(source: str, kind: str, part: str) -> Frames:
    photographs, labels = pictures_of(source, part)
    generator = np.random.default_rng([first_seed_of(part), len(kind)])
    pictures, scenes = [], []
    for scene, photograph in enumerate(photographs):
        for _ in range(1 if kind == "plain" else generator.integers(1, 7)):
            pictures.append(moved(photograph, CAMERAS[kind], generator, kind != "plain"))
            scenes.append(scene)
    pixels = np.stack([np.asarray(one).transpose(2, 0, 1) for one in pictures])
    store = array_store(pixels, [f"{at:05d}" for at in range(len(pixels))])
    of_frames = labels[scenes]
    images = ImageSet(
        store, np.arange(len(pixels)), of_frames, tuple(map(str, range(labels.max() + 1)))
    )
    return Frames(
        pictures, np.array(scenes), of_frames, embedded(images, SIZE), int(labels.max()) + 1
    )


@cache
def pictures_of(source: str, part: str) -> tuple[list[Image.Image], np.ndarray]:
    """SCENES photographs of a source, and their class numbers."""
    images = handful.load(data_folder() / source)
    order = np.random.default_rng(0).permutation(len(images.labeled))
    if images.test is None:
        half = len(order) // 2
        chosen = images[images.labeled[order[:half] if part == "dev" else order[half:]]]
    else:
        chosen = images[images.labeled[order]] if part == "dev" else images.test
    chosen = chosen[np.sort(np.random.default_rng(1).permutation(len(chosen))[:SCENES])]
    pixels = chosen.at(SIDES[source], channels=3).numpy().transpose(0, 2, 3, 1)
    return [Image.fromarray(one) for one in pixels], chosen.labels


def moved(
    picture: Image.Image, camera: Camera, generator: np.random.Generator, again: bool = True
) -> Image.Image:
    """A frame of a photograph; `again`: compressed once more."""
    width, height = picture.size
    seen = min(camera.seen * (1 + camera.zoom * generator.uniform(-1, 1)), 1.0)
    room = (1 - seen) / 2
    across, down = np.clip(camera.shift * generator.uniform(-1, 1, 2), -room, room) + room
    box = (across * width, down * height, (across + seen) * width, (down + seen) * height)
    frame = picture.transform(picture.size, Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    gain, lift = 1 + camera.light * generator.uniform(-1, 1, 2)
    values = np.asarray(frame, np.float32) * gain + 127 * (lift - 1)
    frame = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if camera.blur:
        frame = frame.filter(
            ImageFilter.GaussianBlur(generator.uniform(0, camera.blur) * width / 32)
        )
    if again:
        content = io.BytesIO()
        frame.save(content, "JPEG", quality=int(generator.integers(60, 96)))
        frame = Image.open(content).convert("RGB")
    return frame


def first_seed(options: argparse.Namespace) -> int:
    return first_seed_of(options.part)


def first_seed_of(part: str) -> int:
    return 1000 if part == "dev" else 0


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    cells = ("copies", *CELLS)
    parser.add_argument("--cells", nargs="+", default=cells, choices=cells)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
