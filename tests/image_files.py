"""Write small image files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def noise(height: int, width: int, *, seed: int, channels: int = 3) -> np.ndarray:
    """Noise (H, W) or (H, W, 3) uint8; different seeds give different images."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height: int, width: int, *, seed: int) -> np.ndarray:
    """An image (H, W, 3) uint8 without fine detail, like a photograph."""
    coarse = Image.fromarray(noise(4, 4, seed=seed))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray | None = None, *, seed: int = 0, **options) -> Path:
    """Write an image (noise of 12 x 10 by default), and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(12, 10, seed=seed) if pixels is None else pixels).save(path, **options)
    return path


def class_folder(root: Path, *, per_class: int = 3, classes: tuple[str, ...] = ("cat", "dog")):
    """Write different images to root/<class>/<number>.png."""
    for index, name in enumerate(classes):
        for number in range(per_class):
            save(root / name / f"{number}.png", seed=1000 * index + number)
    return root
