"""Folders of images that no setting was chosen on, made from packages of Debian.

    apt-get install espeak-ng openclipart-png fonts-dejavu ...   # the more fonts, the more letters
    python -m benchmarks run unseen_folders letters $HANDFUL_DATA/letters --files /usr/share/fonts
    python -m benchmarks run unseen_folders drawings $HANDFUL_DATA/drawings \
        --files /usr/share/openclipart/png
    python -m benchmarks run unseen_folders words $HANDFUL_DATA/words

- letters: A to J in every font that has them, 28 x 28 pixels, grey.
- drawings: clip art of ten kinds, 400 of a kind at most, 320 pixels at most, on white.
- words: the numbers zero to nine, spoken by espeak-ng in many voices; spectrograms, 64 x 64, grey.

Each class is a folder. Images with the same pixels are there once.
"""

import argparse
import io
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from benchmarks.lib import arguments

LETTERS = "ABCDEFGHIJ"
LETTER_SIZE = 28
KINDS = (
    "animals", "buildings", "food", "geography", "office", "people", "plants", "recreation",
    "tools", "transportation",
)  # fmt: skip
MOST_DRAWINGS = 400  # of a kind
DRAWING_SIZE = 320
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-029")
VOICES = 400  # of all accents and variants; each says every word once
WINDOW, HOP = 512, 128  # samples of the short Fourier transform, at 22,050 a second
SPECTROGRAM_SIZE = 64
SEED = 0


def main() -> None:
    options = parse()
    if options.folder.exists():
        sys.exit(f"{options.folder} is there: name a new folder")
    makers = {"letters": letters, "drawings": drawings}
    made = words() if options.name == "words" else makers[options.name](options.files)
    seen: set[bytes] = set()
    for label, name, image in made:
        if image.tobytes() not in seen:
            seen.add(image.tobytes())
            target = options.folder / label / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            image.save(target)
    print(f"{len(seen):,} images in {options.folder}")


def letters(fonts: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Each letter in each font below a folder: (class, file name, grey image)."""
    for path in sorted(fonts.rglob("*.[ot]tf")):
        try:
            known = TTFont(path, lazy=True).getBestCmap() or {}
            font = ImageFont.truetype(str(path), 22)
        except Exception as error:  # what a broken font raises is open
            print(f"{path.name} is left out: {error}", file=sys.stderr)
            continue
        for letter in LETTERS if all(ord(letter) in known for letter in LETTERS) else "":
            image = Image.new("L", (LETTER_SIZE, LETTER_SIZE))
            middle = (LETTER_SIZE / 2, LETTER_SIZE / 2)
            ImageDraw.Draw(image).text(middle, letter, 255, font, anchor="mm")
            if image.getbbox():
                yield letter, path.stem, image


def drawings(clip_art: Path) -> Iterator[tuple[str, str, Image.Image]]:
    """Clip art by the folders of openclipart, on white: (class, file name, image)."""
    generator = np.random.default_rng(SEED)
    for kind in KINDS:
        paths = sorted((clip_art / kind).rglob("*.png"))
        for number in sorted(generator.permutation(len(paths))[:MOST_DRAWINGS]):
            try:
                with Image.open(paths[number]) as opened:
                    drawing = opened.convert("RGBA")
            except Image.DecompressionBombError as error:
                print(f"{paths[number].name} is left out: {error}", file=sys.stderr)
                continue
            drawing.thumbnail((DRAWING_SIZE, DRAWING_SIZE))
            white = Image.new("RGBA", drawing.size, "white")
            yield kind, f"{number:04}", Image.alpha_composite(white, drawing).convert("RGB")


def words() -> Iterator[tuple[str, str, Image.Image]]:
    """Spoken numbers as spectrograms: (class, file name, grey image)."""
    generator = np.random.default_rng(SEED)
    variants = _variants()
    for number in range(VOICES):
        voice = f"{generator.choice(ACCENTS)}+{generator.choice(variants)}"
        pitch, speed = generator.integers(20, 80), generator.integers(120, 200)
        noise = generator.uniform(0.001, 0.03)
        for word in WORDS:
            said = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", word]
            sound = subprocess.run(said, check=True, capture_output=True).stdout
            if (image := _spectrogram(sound, noise, generator)) is not None:
                yield word, f"{number:04}", image


def _variants() -> list[str]:
    listed = subprocess.run(
        ["espeak-ng", "--voices=variant"], check=True, capture_output=True, text=True
    )
    files = [
        line.split("!v/")[1].split()[0] for line in listed.stdout.splitlines() if "!v/" in line
    ]
    return sorted(set(files))


def _spectrogram(sound: bytes, noise: float, generator: np.random.Generator) -> Image.Image | None:
    """Logarithms of the magnitudes up to 5.5 kHz, low frequencies at the bottom; None if silent."""
    with wave.open(io.BytesIO(sound)) as opened:
        samples = np.frombuffer(opened.readframes(2**24), np.int16) / 2**15
    if not len(samples) or samples.std() < 1e-3:
        return None
    samples = samples + noise * generator.standard_normal(len(samples))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    magnitudes = np.abs(np.fft.rfft(frames * np.hanning(WINDOW)))[:, : WINDOW // 4]
    decibels = 20 * np.log10(magnitudes + 1e-3)
    scaled = np.clip((decibels - decibels.max() + 70) / 70, 0, 1)
    image = Image.fromarray(np.uint8(255 * scaled.T[::-1]))
    return image.resize((SPECTROGRAM_SIZE, SPECTROGRAM_SIZE), Image.Resampling.BILINEAR)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("name", choices=("letters", "drawings", "words"))
    parser.add_argument("folder", type=Path, help="the folder to make; it must not be there")
    parser.add_argument("--files", type=Path, help="fonts of letters, clip art of drawings")
    options = parser.parse_args()
    if options.name != "words" and options.files is None:
        parser.error(f"{options.name} are made of files: give --files FOLDER")
    return options


if __name__ == "__main__":
    main()
