"""Pixel values of more than 8 bits → 8 bits, by one range for a whole folder.

A camera of 12 bits writes 16-bit files whose values reach 4,095. Scaled by the type, they keep 17
grey levels; scaled by the range that is in use, all of them.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SAMPLE = 2_000_000  # values looked at per file
SHARE = (0.1, 99.9)  # percentiles of one file: a few hot or dead pixels do not count
FILES = 95  # percentile of the files' ends, from five files on: one odd file does not count


class ValueRange(NamedTuple):
    """What becomes black and what becomes white."""

    low: float
    high: float
    real: bool = False  # of floating-point files; they do not share a scale with whole numbers


class Values(NamedTuple):
    """What one file of more than 8 bits holds."""

    low: float  # 0.1 % of the values are lower
    high: float  # 0.1 % are higher
    real: bool


FULL = ValueRange(0, 65535)  # the scale of runs made before the range was looked at


def values_of(pixels: np.ndarray) -> Values:
    """Robust ends of the finite values of one image."""
    flat = pixels.reshape(-1)
    flat = flat[:: max(1, flat.size // SAMPLE)]
    real = pixels.dtype.kind == "f"
    if real:
        flat = flat[np.isfinite(flat)]
    if not flat.size:
        return Values(0.0, 0.0, real)
    low, high = np.percentile(flat.astype(np.float64), SHARE)
    if not real:  # a value that occurs, not one between two
        low, high = np.floor(low), np.ceil(high)
    return Values(float(low), float(high), real)


def value_range(files: Sequence[Values]) -> ValueRange | None:
    """One range for these files; None where there is none of more than 8 bits.

    Whole numbers: from 0 to the next power of two minus 1 (255, 1023, 4095, 65535), as sensors
    have it. Values below 0, or all far above it, are stretched from their lowest to their highest.
    """
    whole = [file for file in files if not file.real]
    files = whole or files
    if not files:
        return None
    real = not whole
    low, high = _end([-file.low for file in files]) * -1, _end([file.high for file in files])
    tops = (1.0, 255.0) if real else tuple(float(2**bits - 1) for bits in range(8, 33))
    top = next((top for top in tops if high <= top), high)
    if real and high <= top / 4:
        top = high
    if low < 0 or low > top / 2:
        return ValueRange(low, high if high > low else low + 1, real)
    return ValueRange(0.0, top if top > 0 else 1.0, real)


def scaled(pixels: np.ndarray, chosen: ValueRange | None) -> np.ndarray:
    """uint8 of the same shape. Without a range, or with one of another kind, by its own."""
    if chosen is None or chosen.real != (pixels.dtype.kind == "f"):
        chosen = value_range([values_of(pixels)])
        assert chosen is not None
    if pixels.dtype == np.uint16 and pixels.size > 2**16:  # a table of all values is quicker
        table = scaled(np.arange(2**16, dtype=np.uint16), chosen)
        return table[pixels]
    low, high, _ = chosen
    out = np.empty(pixels.shape, np.uint8)
    rows = max(1, 1_000_000 // max(1, pixels[:1].size))
    for start in range(0, len(pixels), rows):  # in parts: floats of all would cost eight times more
        part = pixels[start : start + rows].astype(np.float64)
        part = np.nan_to_num(part, nan=low, posinf=high, neginf=low)
        part = (part - low) * (255 / (high - low))
        out[start : start + rows] = np.rint(part).clip(0, 255)
    return out


def marked(fingerprints: np.ndarray, deep: np.ndarray, chosen: ValueRange | None) -> np.ndarray:
    """(N, 16) fingerprints in which those of the `deep` files tell the range, too.

    Whatever is cached by fingerprint is then never taken for pixels of another scale.
    """
    if chosen is None or not deep.any():
        return fingerprints
    changed, text = fingerprints.copy(), repr(tuple(chosen)).encode()
    for row in np.flatnonzero(deep):
        mixed = hashlib.blake2b(fingerprints[row].tobytes() + text, digest_size=16).digest()
        changed[row] = np.frombuffer(mixed, np.uint8)
    return changed


def _end(ends: Sequence[float]) -> float:
    if len(ends) < 5:
        return float(max(ends))
    return float(np.percentile(ends, FILES, method="lower"))
