"""Pixel values of more than 8 bits → 8 bits, by one range for a whole folder.

Whole numbers and floating-point files share no scale: a folder of both has a range for each.

A camera of 12 bits writes 16-bit files whose values reach 4,095. Scaled by the type, they keep 17
grey levels; scaled by the range that is in use, all of them.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SAMPLE = 2_000_000  # values looked at per file
SHARE = (0.1, 99.9)  # percentiles of one file: a few hot or dead pixels do not count
FILES = 95  # percentile of the files' ends, from five files on: one odd file does not count


class ValueRange(NamedTuple):
    """What becomes black and what becomes white."""

    low: float
    high: float
    real: bool = False  # of floating-point files; they do not share a scale with whole numbers


class Ranges(NamedTuple):
    """The ranges of a folder that holds files of both kinds."""

    whole: ValueRange
    real: ValueRange


Scale = ValueRange | Ranges


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


def value_range(files: Sequence[Values]) -> Scale | None:
    """One range for these files of each kind; None where there is none of more than 8 bits."""
    whole = _range_of([file for file in files if not file.real])
    real = _range_of([file for file in files if file.real])
    return Ranges(whole, real) if whole and real else whole or real


def of_kind(scale: Scale | None, real: bool) -> ValueRange | None:
    """The range of floating-point files, or of whole numbers; None where it is not known."""
    if isinstance(scale, Ranges):
        return scale.real if real else scale.whole
    return scale if scale is not None and scale.real == real else None


def fitting(own: Scale | None, given: Scale | None) -> Scale | None:
    """The given scale for the kinds of files that `own` is for; `own` where none is given."""
    if isinstance(own, Ranges):
        whole, real = of_kind(given, False), of_kind(given, True)
        return Ranges(whole or own.whole, real or own.real)
    return own and (of_kind(given, own.real) or own)


def in_words(scale: Scale) -> str:
    if isinstance(scale, Ranges):
        return f"{in_words(scale.whole)} (floating-point files {in_words(scale.real)})"
    return f"from {scale.low:g} to {scale.high:g}"


def from_json(value: Sequence[Any] | None) -> Scale | None:
    """What JSON keeps of a scale: three values, or two such lists."""
    if value is None:
        return None
    if isinstance(value[0], Sequence):
        return Ranges(*(ValueRange(*one) for one in value))
    return ValueRange(*value)


def _range_of(files: Sequence[Values]) -> ValueRange | None:
    """One range for files of one kind; None where there is none.

    Whole numbers: from 0 to the next power of two minus 1 (255, 1023, 4095, 65535), as sensors
    have it. Values below 0, or all far above it, are stretched from their lowest to their highest.
    """
    if not files:
        return None
    real = files[0].real
    low, high = _end([-file.low for file in files]) * -1, _end([file.high for file in files])
    tops = (1.0, 255.0) if real else tuple(float(2**bits - 1) for bits in range(8, 33))
    top = next((top for top in tops if high <= top), high)
    if real and high <= top / 4:
        top = high
    if low < 0 or low > top / 2:
        return ValueRange(low, high if high > low else low + 1, real)
    return ValueRange(0.0, top if top > 0 else 1.0, real)


def scaled(pixels: np.ndarray, scale: Scale | None) -> np.ndarray:
    """uint8 of the same shape. Without a range, or with one of another kind, by its own."""
    chosen = of_kind(scale, pixels.dtype.kind == "f") or _range_of([values_of(pixels)])
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


def marked(fingerprints: np.ndarray, deep: np.ndarray, chosen: Scale | None) -> np.ndarray:
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
