"""Make augmented copies of images once, before training, as one of the reports did.

Views drawn at every step are more diverse; copies serve to reproduce that report only.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from handful.data.augmentation.pipelines import named
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.errors import HandfulError


def with_copies(images: ImageSet, pipelines: Sequence[str], copies: int, seed: int) -> ImageSet:
    """Return the images with `copies` copies of each labelled image under each pipeline.

    An image and its copies are one group, which no fold and no validation part splits.

    Raises:
        HandfulError: the images are not square, or of several sizes.
    """
    if images.native_size is None or images.native_size[0] != images.native_size[1]:
        raise HandfulError(
            f"copies need images of one square size, and those of {images.source} vary"
        )
    pixels = images.at(images.native_size[0])
    originals = images.labeled
    generator = torch.Generator().manual_seed(seed)
    parts, names = [pixels.numpy()], images.names
    for pipeline in pipelines:
        view = named(pipeline, flips=images.channels == 3)
        for copy in range(copies):
            changed = view(pixels[originals], generator)
            parts.append(changed.mul(255).round().to(torch.uint8).numpy())
            names += [f"{images.names[i]} {pipeline} {copy}" for i in originals]
    times = len(pipelines) * copies
    groups = images.groups if images.groups is not None else np.arange(len(images))
    store = array_store(np.concatenate(parts), names)
    return replace(
        images,
        store=store,
        rows=np.arange(len(names)),
        labels=np.concatenate([images.labels, np.tile(images.labels[originals], times)]),
        groups=np.concatenate([groups, np.tile(groups[originals], times)]),
    )
