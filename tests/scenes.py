"""Frames of scenes for tests: smooth pictures, seen by a camera that moves a little."""

import numpy as np
from PIL import Image

from image_files import smooth


def scene(seed: int) -> np.ndarray:
    """A picture (96, 96, 3) uint8 with more detail than `smooth` has."""
    coarse, fine = smooth(96, 96, seed=seed), smooth(24, 24, seed=seed + 500_000)
    return (0.6 * coarse + 0.4 * np.tile(fine, (4, 4, 1))).astype(np.uint8)


def frame(seed: int, right: int = 0, down: int = 0, light: float = 1.0) -> np.ndarray:
    """A frame (64, 64, 3) uint8 of a scene: 64 of its 96 pixels, from the middle or beside it."""
    part = scene(seed)[16 + down : 80 + down, 16 + right : 80 + right]
    return (light * part.astype(np.float64)).clip(0, 255).astype(np.uint8)


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """(1, 32, 32) uint8."""
    grey = Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.BOX)
    return np.asarray(grey)[None]
