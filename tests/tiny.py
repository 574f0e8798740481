"""Small image sets and tasks for tests: classes of stripes, learnable in a few steps."""

from dataclasses import replace

import numpy as np

from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.methods.base import Task
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec
from image_files import save

SCHEDULE = Schedule(steps=12, batch=8, lr=0.02, looks=3)


def stripes(n=40, classes=2, size=8, channels=1, labeled=16, seed=0):
    """Images of class k have stripes at k * 180 / classes degrees; the first are labelled."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    y, x = np.mgrid[:size, :size]
    angle = (labels * np.pi / classes)[:, None, None]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 1.6 + rng.uniform(0, 6, (n, 1, 1)))
    images = np.clip(128 + 80 * wave + rng.normal(0, 20, wave.shape), 0, 255).astype(np.uint8)
    images = np.repeat(images[:, None], channels, axis=1)
    images[:, -1] //= 2  # so that colour is not grey
    store = array_store(images, [f"{i:03}.png" for i in range(n)])
    names = tuple("abcdefghij"[:classes])
    every = ImageSet(store, np.arange(n), labels.astype(np.int64), names, source="stripes")
    return every.seen(np.arange(labeled))


def striped(root):
    """Write eight images of `stripes`, a.png to h.png, into a folder, and return it."""
    for name, pixels in zip("abcdefgh", stripes().at(8).numpy()[:8, 0], strict=True):
        save(root / f"{name}.png", pixels)
    return root


def task(images=None, **changes):
    images = stripes() if images is None else images
    size = images.native_size[0]
    return replace(Task(images, BackboneSpec("small", {"base": 8}), size, flips=False), **changes)
