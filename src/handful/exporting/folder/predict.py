"""Classify pictures with the model.onnx beside this file; needs numpy, pillow and onnxruntime.

python predict.py photos/ > answers.csv; with --check: does it answer here as it did at home?
"""

import argparse
import csv
import io
import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # no records of use go to Microsoft
import onnxruntime
from pictures import load

HERE, PASS = Path(__file__).resolve().parent, 102_400  # pixels that a cache holds the values of
ENDINGS = "jpg jpeg jpe jfif mpo png webp bmp gif tif tiff ppm pgm pbm pnm avif heic heif"


class Model:
    def __init__(self, path):
        options, cpu = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(path, options, providers=cpu)
        about = self.session.get_modelmeta().custom_metadata_map
        self.about = {key: json.loads(text) for key, text in about.items()}

    def answer(self, images):
        """Probabilities (N, K) of images (N, C, S, S), and which (N,) are none of the classes."""
        found, known = self.session.run(None, {"images": images}), self.about["none_of_these"]
        return found[0], found[1] > known["distance"] if known else np.zeros(len(images), bool)

    def threshold(self, target):
        """The confidence from which on at least the share `target` of the answers is right."""
        enough = [row for row in self.about["abstentions"] if row["sure"] >= target]
        if not enough:
            sys.exit(f"the labels behind this model cannot promise that {target:.0%} are right")
        return min(enough, key=lambda row: row["sure"])["threshold"]


def rows(model, files, least, none_of_these):
    """Name, label, confidence, mark and probabilities of each picture that can be read."""
    batch = max(1, min(64, PASS // model.about["input"]["size"] ** 2))
    for start in range(0, len(files), batch):
        read = []
        for name, path in files[start : start + batch]:
            try:
                read.append((name, load(path, **model.about["input"])))
            except Exception as error:  # Pillow raises almost anything on damaged bytes
                print(f"{name} is left out: {error}", file=sys.stderr)
        answers = model.answer(np.stack([pixels for _, pixels in read])) if read else ((), ())
        for (name, _), shares, strange in zip(read, *answers, strict=True):
            answered = shares.max() >= least and not (none_of_these and strange)
            label = model.about["classes"][shares.argmax()] if answered else ""
            mark = ["yes" if strange else ""] * none_of_these
            first, *others = (f"{share:.4f}" for share in (shares.max(), *shares))
            yield [harmless(name), harmless(label), first, *mark, *others]


def harmless(cell):
    return f"'{cell}" if cell[:1] in tuple("=+-@\t\r") else cell  # a spreadsheet would run it


def check(model):
    """Exit with status 0 where model and pictures are as they were where they were exported."""
    kept = np.load(HERE / "check.npz")
    found, expected = model.answer(kept["images"])[0], kept["probabilities"]
    worst, same = abs(found - expected).max(), (found.argmax(1) == expected.argmax(1)).all()
    files = {io.BytesIO(kept[key].tobytes()): kept[key[5:]] for key in kept if key[:5] == "file "}
    off = max(abs(load(file, **model.about["input"]) - pixels.astype(int)).max()
              for file, pixels in files.items())  # fmt: skip
    print(f"{len(found)} images: probabilities differ by {worst:.1e} at most, classes are equal: "
          f"{same}; {len(files)} files: pixels differ by {off} of 255 at most")  # fmt: skip
    sys.exit(0 if worst <= 1e-3 and same and off <= 2 else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path, help="files, or folders of them")
    parser.add_argument("--abstain", type=float, metavar="0.95", help="share that is to be right")
    parser.add_argument("--none-of-these", action="store_true", help="mark strange pictures")
    parser.add_argument("--check", action="store_true", help="compare with check.npz")
    parser.add_argument("--model", type=Path, default=HERE / "model.onnx", help="another one")
    asked, files = parser.parse_args(), []
    if not (asked.pictures or asked.check):
        parser.error("name pictures, or --check; --help says more")
    if (model := Model(asked.model)) and asked.check:
        check(model)
    if missing := [str(path) for path in asked.pictures if not path.exists()]:
        parser.error(
            f"no such file or folder: {', '.join(missing)}; name pictures, or their folder"
        )
    folders = [path if path.is_dir() else path.parent for path in asked.pictures]
    try:
        root = os.path.commonpath(map(os.path.abspath, folders))  # names are those from there
    except ValueError:
        parser.error("the pictures are on several drives; name those of one at a time")
    for path in asked.pictures:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower()[1:] in ENDINGS.split())
        inside = [p for p in inside if p.is_file()] if path.is_dir() else [path]
        files += [(os.path.relpath(p, root).replace(os.sep, "/"), p) for p in inside]
    files = list(dict(files).items())  # each picture once, also where it was named twice
    if not files:
        parser.error(
            f"no picture in {', '.join(map(str, asked.pictures))}; pictures end in {ENDINGS}"
        )
    least = 0 if asked.abstain is None else model.threshold(asked.abstain)
    header = ["file", "label", "confidence", *["none_of_these"] * asked.none_of_these]
    table = csv.writer(sys.stdout, lineterminator="\n")
    answered = rows(model, files, least, asked.none_of_these)
    if (first := next(answered, None)) is None:
        parser.error("none of the pictures can be read; the lines above say why")
    table.writerow(header + [f"p({name})" for name in model.about["classes"]])
    table.writerows([first])
    table.writerows(answered)
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # whoever read the answers has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
