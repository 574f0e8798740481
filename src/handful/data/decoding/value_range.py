"""Scale images of more than 8 bits to 8 bits, by one range for a whole folder.

A camera of 12 bits writes 16-bit files with values up to 4,095. Scaled by the range of the type
they would keep 17 grey levels; scaled by the range in use they keep 256. Integer and floating-point
files have ranges of their own.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

SAMPLE = 2_000_000  # values sampled per file
SHARE = (0.1, 99.9)  # percentiles that are a file's range: a few hot or dead pixels do not count
FILES = 95  # percentile of the files' ranges, from five files on: one unusual file does not count


class ValueRange(NamedTuple):
    """The values that become black and white."""

    low: float
    high: float
    real: bool = False  # whether it is the range of floating-point files


class Ranges(NamedTuple):
    """The ranges of a folder with integer and floating-point files."""

    whole: ValueRange
    real: ValueRange


Scale = ValueRange | Ranges


class Values(NamedTuple):
    """The range of one file of more than 8 bits."""

    low: float  # 0.1 % of the values are lower
    high: float  # 0.1 % are higher
    real: bool  # whether the file holds floating-point values


FULL = ValueRange(0, 65535)  # the scale of runs made by versions without ranges


def values_of(pixels: np.ndarray) -> Values:
    """The range of the finite values of one image, without outliers (SHARE)."""
    flat = pixels.reshape(-1)
    flat = flat[:: max(1, flat.size // SAMPLE)]
    real = pixels.dtype.kind == "f"
    if real:
        flat = flat[np.isfinite(flat)]
    if not flat.size:
        return Values(0.0, 0.0, real)
    low, high = np.percentile(flat.astype(np.float64), SHARE)
    if not real:  # percentiles interpolate: round to values that occur
        low, high = np.floor(low), np.ceil(high)
    return Values(float(low), float(high), real)


def value_range(files: Sequence[Values]) -> Scale | None:
    """One range for the integer and one for the floating-point files; None without files."""
    whole = _range_of([file for file in files if not file.real])
    real = _range_of([file for file in files if file.real])
    return Ranges(whole, real) if whole and real else whole or real


def of_kind(scale: Scale | None, real: bool) -> ValueRange | None:
    """The scale's range for floating-point (`real`) or integer files, or None."""
    if isinstance(scale, Ranges):
        return scale.real if real else scale.whole
    return scale if scale is not None and scale.real == real else None


def merged(own: Scale | None, given: Scale | None) -> Scale | None:
    """The scale `own` with the ranges of `given` for the kinds of files that both cover."""
    if isinstance(own, Ranges):
        whole, real = of_kind(given, False), of_kind(given, True)
        return Ranges(whole or own.whole, real or own.real)
    return own and (of_kind(given, own.real) or own)


def in_words(scale: Scale) -> str:
    """The scale as a phrase: "from 0 to 4095"."""
    if isinstance(scale, Ranges):
        return f"{in_words(scale.whole)} (floating-point files {in_words(scale.real)})"
    return f"from {scale.low:g} to {scale.high:g}"


def from_json(value: Sequence[Any] | None) -> Scale | None:
    """The scale in JSON: a list of three values, or two such lists."""
    if value is None:
        return None
    if isinstance(value[0], Sequence):
        return Ranges(*(ValueRange(*one) for one in value))
    return ValueRange(*value)


def _range_of(files: Sequence[Values]) -> ValueRange | None:
    """One range for files of one kind; None without files.

    Integers range from 0 to the next power of two minus 1 (255, 1023, 4095, 65535), like the values
    of sensors. Values below 0, or all far above 0, range from their minimum to their maximum.
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
    """The pixels as uint8; without a range of their kind in `scale`, by their own range."""
    chosen = of_kind(scale, pixels.dtype.kind == "f") or _range_of([values_of(pixels)])
    assert chosen is not None
    if pixels.dtype == np.uint16 and pixels.size > 2**16:  # a lookup table is quicker
        table = scaled(np.arange(2**16, dtype=np.uint16), chosen)
        return table[pixels]
    low, high, _ = chosen
    out = np.empty(pixels.shape, np.uint8)
    rows = max(1, 1_000_000 // max(1, pixels[:1].size))
    for start in range(
        0, len(pixels), rows
    ):  # floats of all pixels would take eight times the memory
        part = pixels[start : start + rows].astype(np.float64)
        part = np.nan_to_num(part, nan=low, posinf=high, neginf=low)
        part = (part - low) * (255 / (high - low))
        out[start : start + rows] = np.rint(part).clip(0, 255)
    return out


def fingerprints_at(scale: Scale | None, fingerprints: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """Fingerprints (N, 16) that depend on the scale where `deep` (N,) is true.

    Data that are cached by fingerprint are then never used for pixels of another scale.

    Args:
        fingerprints: (N, 16) of the files' own values.
        deep: (N,) bool, images of more than 8 bits.
    """
    if scale is None or not deep.any():
        return fingerprints
    changed, text = fingerprints.copy(), repr(tuple(scale)).encode()
    for row in np.flatnonzero(deep):
        digest = hashlib.blake2b(fingerprints[row].tobytes() + text, digest_size=16).digest()
        changed[row] = np.frombuffer(digest, np.uint8)
    return changed


def _end(ends: Sequence[float]) -> float:
    if len(ends) < 5:
        return float(max(ends))
    return float(np.percentile(ends, FILES, method="lower"))
