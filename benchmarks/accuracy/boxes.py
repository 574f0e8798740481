"""What crops of a detector's boxes are worth against whole frames, on synthetic camera frames.

    python -m benchmarks run boxes dev --draws 1000-1001 --dry
    python -m benchmarks run boxes final

300 frames of 640 x 480: backgrounds are photographs of `tin10/unlabeled`, 30 cameras with ten
frames each, moved and lit a little differently in every frame. In each frame is one photograph of
`sign-digits`, 80 to 130 pixels a side, somewhere; its box is known, and written in MegaDetector's
format with edges that are up to 6 % of the side off, as those of a detector are. A draw labels ten
frames of each class, in a label file that names frames; the others are held out. The method
`features` learns from the whole frames, and from the crops (`--boxes`, its defaults); both have the
same labels and are scored on the same frames, a frame by the class of its crop.

Development: the first half of sign-digits, and draws 1000 and up; final: the other half, draws 0-4.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import handful
from benchmarks.accuracy.recipes import draw_range
from benchmarks.lib import arguments, record
from handful.csv_files import write_csv
from handful.data.cache import data_folder
from handful.data.splits import draw as draw_labels
from handful.evaluation.metrics import wilson

FILE = "boxes"
FRAMES, CAMERAS = 300, 30
WIDE, HIGH = 640, 480
PASTED = (80, 130)  # least and most pixels a side
OFF = 0.06  # share of its side that an edge of a box is off, at most
PER_CLASS = 10
METHOD = "features"


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "frames"
        labels = make_frames(folder, Path(scratch) / "boxes.json", options.part)
        for draw in options.draws or (range(5) if options.part == "final" else range(1000, 1003)):
            for name in ("whole frames", "crops"):
                if not options.dry and record.recorded(FILE, name, options.part, draw):
                    continue
                figures = score(folder, labels, Path(scratch), draw, name == "crops")
                print(f"{name}, draw {draw}: {figures}", flush=True)
                if not options.dry:
                    record.append(FILE, name, options.part, figures, draw=draw)


def score(
    folder: Path, labels: dict[str, str], scratch: Path, draw: int, crops: bool
) -> dict[str, Any]:
    """Accuracy on the frames without a label, and the estimate."""
    names = sorted(labels)
    classes = sorted(set(labels.values()))
    numbers = np.array([classes.index(labels[name]) for name in names])
    chosen = {names[at] for at in draw_labels(numbers, PER_CLASS, draw)}
    table = scratch / f"labels-{draw}.csv"
    write_csv(table, ["file", "label"], [[name, labels[name]] for name in sorted(chosen)])
    begun = time.perf_counter()
    boxes = scratch / "boxes.json" if crops else None
    images = handful.load(folder, table, boxes=boxes, folders="ignore")
    run = handful.fit(images, METHOD, seed=draw)
    predictions = run.predict(images)
    answers = {one.name: one.label for one in (predictions.by_photo() if crops else predictions)}
    held_out = [name for name in names if name not in chosen]
    right = sum(answers[name] == labels[name] for name in held_out)
    low, high = wilson(right / len(held_out), len(held_out), 0.9)
    return {
        "accuracy": round(right / len(held_out), 5),
        "low": round(low, 5),
        "high": round(high, 5),
        "n_test": len(held_out),
        "labels": len(chosen),
        "estimate": round(run.estimate["accuracy"], 5),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def make_frames(folder: Path, boxes: Path, part: str) -> dict[str, str]:
    """Write frames and their boxes; the class of each frame."""
    generator = np.random.default_rng(0 if part == "final" else 1000)
    root = data_folder()
    photographs = [
        (path, path.parent.name) for path in sorted((root / "sign-digits").rglob("*.JPG"))
    ]
    order = np.random.default_rng(0).permutation(len(photographs))
    half = len(order) // 2
    chosen = order[half:] if part == "final" else order[:half]
    picked = generator.permutation(chosen)[:FRAMES]
    scenes = sorted((root / "tin10" / "unlabeled").glob("*.JPEG"))
    of_camera = generator.choice(len(scenes), CAMERAS, replace=False)
    labels, images = {}, []
    for at, photograph in enumerate(picked.tolist()):
        path, label = photographs[photograph]
        camera = at % CAMERAS
        name = f"camera-{camera:02}/IMG_{at:04}.jpg"
        frame = seen(scenes[of_camera[camera]], generator)
        left, top, side = paste(frame, path, generator)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        frame.save(folder / name, quality=85)
        images.append({"file": name, "detections": [detection(left, top, side, generator)]})
        labels[name] = label
    info = {"format_version": "1.4", "detector": "boxes that are known"}
    found = {"info": info, "detection_categories": {"1": "animal"}, "images": images}
    boxes.write_text(json.dumps(found))
    return labels


def seen(scene: Path, generator: np.random.Generator) -> Image.Image:
    """What a camera sees: its scene, moved and lit a little."""
    with Image.open(scene) as opened:
        picture = opened.convert("RGB")
    wide, high = picture.size
    box = np.array([0, 0.12 * high, wide, 0.88 * high]) * 0.9 + generator.uniform(0, 0.05 * wide)
    frame = picture.resize((WIDE, HIGH), Image.Resampling.BICUBIC, tuple(box))
    lit = np.asarray(frame, np.float32) * generator.uniform(0.8, 1.2)
    lit += generator.normal(0, 4, lit.shape)
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))


def paste(frame: Image.Image, path: Path, generator: np.random.Generator) -> tuple[int, int, int]:
    """Left, top and side of a photograph that is put into a frame."""
    side = int(generator.integers(PASTED[0], PASTED[1] + 1))
    left, top = (int(generator.integers(0, length - side)) for length in (WIDE, HIGH))
    with Image.open(path) as opened:
        frame.paste(
            opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (left, top)
        )
    return left, top, side


def detection(left: int, top: int, side: int, generator: np.random.Generator) -> dict[str, Any]:
    """The box in MegaDetector's form, its edges a little off."""
    ends = np.array([left, top, left + side, top + side]) + generator.uniform(-OFF, OFF, 4) * side
    ends = ends.clip(0, [WIDE, HIGH] * 2) / ([WIDE, HIGH] * 2)
    box = [ends[0], ends[1], ends[2] - ends[0], ends[3] - ends[1]]
    confidence = float(generator.uniform(0.3, 0.98))
    return {"category": "1", "conf": round(confidence, 3), "bbox": [round(v, 4) for v in box]}


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--draws", type=draw_range, help="such as 0-4")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
