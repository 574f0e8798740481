"""Label an ImageSet from a notebook: the page runs beside, the labels are read when wanted."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handful.data import decode
from handful.data.imageset import ImageSet, sorted_classes
from handful.labeling.marks import LABEL, Mark
from handful.labeling.photos import SetPhotos
from handful.labeling.serve import close, listening_server
from handful.labeling.start import TABLE, Wanted, open_page
from handful.pipeline.given import images_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Labeling:
    """A running labelling page. `images` has the labels so far; `close` ends it."""

    def __init__(self, images: ImageSet, wanted: Wanted, port: int) -> None:
        self._images = images
        start = {
            name: Mark(
                LABEL,
                images.classes[label],
                images.origins.get(name, "unknown"),
                confirmed=name in images.confirmed,
            )
            for name, label in zip(images.names, images.labels.tolist(), strict=True)
            if label >= 0
        }
        self._page = open_page(wanted, print, SetPhotos(images), start)
        self._guarded = decode.guarded()
        self._context = listening_server(self._page, "127.0.0.1", port)
        self._server, sockets, self.address = self._context.__enter__()
        self._guarded.__enter__()
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": sockets}, daemon=True
        )
        self._thread.start()

    def __repr__(self) -> str:
        state = self._page.session.state()
        return f"labelling page: {self.address} ({state['labels']} labels so far)"

    @property
    def images(self) -> ImageSet:
        """The images with the labels so far, and how each came about."""
        marks, classes = self._page.session.snapshot()
        named = sorted_classes({*self._images.classes, *classes})
        index = {name: k for k, name in enumerate(named)}
        labels = np.full(len(self._images), -1, np.int64)
        origins, confirmed = dict(self._images.origins), set()
        for number, mark in marks.items():
            if mark.label is not None:
                labels[number] = index[mark.label]
                blind = mark.seen in ("", "blind")
                name = self._page.session.names[number]
                origins[name] = mark.origin if blind or mark.origin != "random" else "chosen"
                if mark.confirmed:
                    confirmed.add(name)
        labeled = self._images.relabeled(named).with_labels(labels)
        return replace(labeled, origins=origins, confirmed=frozenset(confirmed))

    def close(self) -> ImageSet:
        """End the page, write the label file if it changed, and return the labelled images."""
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._context.__exit__(None, None, None)
        self._guarded.__exit__(None, None, None)
        close(self._page)
        return self.images


def label(
    images: Any,
    labels: Path | str = TABLE,
    *,
    classes: "Sequence[str]" = (),
    port: int = 0,
) -> Labeling:
    """Open a labelling page for images, and return at once; the result has its address.

    >>> page = handful.label(handful.load("photos", labeled=False), classes=["fox", "hare"])
    labels.csv is new...
    >>> page  # doctest: +SKIP
    labelling page: http://127.0.0.1:40123/?token=… (0 labels so far)
    >>> images = page.close()  # with the labels so far
    >>> len(images)
    4

    Args:
        images: what `load` takes: a folder, or pictures in memory; or what it returned.
        labels: label file that is written while you label; with the journal beside it the same
            call goes on where it was.
        classes: in the order of their keys, if no image has a label yet.

    Raises:
        HandfulError: another page writes the same label file, or the port is taken.
    """
    images = images_of(images)
    wanted = Wanted(images.source, Path(labels), classes=tuple(classes), folders="ignore")
    return Labeling(images, wanted, port)
