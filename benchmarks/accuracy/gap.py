"""What keeps the rows of report E below what it published: one thing changed at a time.

    python -m benchmarks run gap cifar10-cnn --variants compressed fp32 --draws 0-4

`compressed`: every image of CIFAR-10 (JPEG), training and test, goes through JPEG once more, as it
did on its way to us (quality 75, chroma halved), with the blocks shifted by half a block, so that
as much is lost anew; the mean change of a pixel is in the line. What that costs is a hint at what
the first compression cost. `fp32`: as it is, in full precision. The benchmark `recipes`
has the rows as they are. A draw that has its line is not run again.
"""

import argparse
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.accuracy.recipes import draw_range
from benchmarks.lib import arguments, record
from handful.data.cache import data_folder
from handful.pipeline.recipes import RECIPES, find
from handful.pipeline.recipes.reproduce import LOCATIONS, reproduce
from handful.progress import Reporter

FILE = "gap"
VARIANTS = ("compressed", "fp32")
QUALITY, SHIFT = 75, 4  # of the copy at hand, see its README; pixels: half a block


def main() -> None:
    options = parse()
    for name in options.names:
        for variant in options.variants:
            run(name, variant, options.draws)


def run(name: str, variant: str, draws: Sequence[int]) -> None:
    row = f"{name}, {variant}"
    todo = [draw for draw in draws if not record.recorded(FILE, row, "final", draw)]
    recipe, changed = find(name), {}
    with tempfile.TemporaryDirectory() as scratch:
        root = data_folder()
        if variant == "fp32":
            recipe = replace(recipe, precision="fp32")
        elif todo:
            changed["pixel_change"] = round(compress(root, Path(scratch)), 2)
            root = Path(scratch)
        reporter = Reporter(say=lambda text: print(text, flush=True))
        for outcome in reproduce(recipe, todo, data_root=root, reporter=reporter):
            figures = {
                "test_accuracy": round(outcome.accuracy, 5),
                "n_test": outcome.n,
                "seconds": outcome.seconds,
            }
            record.append(FILE, row, "final", figures | changed, draw=outcome.draw, on=outcome.on)
            print(f"{row}, draw {outcome.draw}: {outcome.accuracy:.4f}", flush=True)


def compress(root: Path, out: Path) -> float:
    """All images of CIFAR-10 (JPEG) once more through JPEG, as PNG; mean change of 0 to 255."""
    folder = LOCATIONS["cifar10-jpeg"].folder
    apart = []
    for path in sorted((root / folder).rglob("*.jpg")):
        with Image.open(path) as opened:
            before = opened.convert("RGB")
        after = once_more(before)
        apart.append(np.abs(np.asarray(after, float) - np.asarray(before, float)).mean())
        to = (out / path.relative_to(root)).with_suffix(".png")
        to.parent.mkdir(parents=True, exist_ok=True)
        after.save(to)
    return float(np.mean(apart))


def once_more(image: Image.Image) -> Image.Image:
    """Mirrored at its edges, so that what surrounds it changes little."""
    wide = np.pad(np.asarray(image), ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="symmetric")
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    with Image.open(file) as opened:
        return ImageOps.crop(opened.convert("RGB"), SHIFT)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("names", nargs="+", metavar="RECIPE", choices=RECIPES)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--draws", type=draw_range, default=range(5), help="such as 0-4")
    return parser.parse_args()


if __name__ == "__main__":
    main()
