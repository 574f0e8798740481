"""The images of a session: names at once, pictures on demand, an ImageSet when it is needed.

Names are listed without a look into the files, so that the first image is shown before anything
is scanned. Pictures are encoded anew and carry no EXIF. This module does not import torch.
"""

import io
import threading
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from handful.data import decode
from handful.data.decode import Facts, Unreadable
from handful.data.scan import (
    Scan,
    inspect_files,
    listing,
    remember_facts,
    remembered_facts,
)
from handful.data.source_names import check_not_empty
from handful.errors import HandfulError

if TYPE_CHECKING:
    from handful.data.imageset import ImageSet

TILE, VIEW, ZOOM = 200, 1000, 2400  # sides in pixels that a page may ask for
SIDES = (TILE, VIEW, ZOOM)
SHARP = 64  # pixels: up to this side a picture is PNG, without loss
CACHED = 96 * 2**20  # bytes of encoded pictures that are kept


class Picture(NamedTuple):
    """An encoded picture."""

    content: bytes
    kind: str  # its media type


class Photos(ABC):
    """The images of a session, by number."""

    names: list[str]
    source: str  # as the user typed it
    root: Path  # that names are relative to

    def __init__(self) -> None:
        self.unreadable: dict[int, str] = {}  # number → why it cannot be shown
        self._kept: OrderedDict[tuple[int, int], Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def picture(self, number: int, side: int) -> Picture:
        """The image within `side` pixels, as JPEG or PNG; raises `Unreadable`."""
        key = (number, side)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        try:
            picture = encoded(self._pixels(number, side))
        except Unreadable as error:
            self.unreadable[number] = str(error)
            raise
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._bytes += len(picture.content)
            while self._bytes > CACHED:
                _, old = self._kept.popitem(last=False)
                self._bytes -= len(old.content)
        return picture

    @abstractmethod
    def _pixels(self, number: int, side: int) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8, at most `side` pixels a side; raises `Unreadable`."""

    @abstractmethod
    def images(self, numbers: list[int]) -> "tuple[ImageSet, list[int]]":
        """The readable ones of these images, without labels, and their numbers."""

    def finished(self) -> None:
        """Keep what was found; called when every image was in a call of `images`."""
        return


class FolderPhotos(Photos):
    """The image files of a folder."""

    def __init__(self, source: str, follow_links: bool = False) -> None:
        super().__init__()
        check_not_empty(source)
        self.source, self.root = source, Path(source).expanduser()
        if not self.root.is_dir():
            raise HandfulError(f"no folder {source!r}; give a folder of images to label")
        self.found, self.skipped, _ = listing(self.root, follow_links)
        if not len(self.found):
            raise HandfulError(f"{source} holds no image; give a folder of images to label")
        self.names = self.found.names
        self._facts: dict[str, Facts | str] | None = None
        self._colour = False  # whether an image in colour was found

    def _pixels(self, number: int, side: int) -> np.ndarray:
        return decode.read_within(self.root / self.names[number], side)

    def images(self, numbers: list[int]) -> "tuple[ImageSet, list[int]]":
        from handful.data.facts import facts_table
        from handful.data.image_folder import file_store
        from handful.data.imageset import ImageSet
        from handful.data.opened import Folder

        facts = self._known(numbers)
        kept = []
        for number in numbers:
            known = facts[self.names[number]]
            if isinstance(known, Facts):
                kept.append(number)
                self._colour = self._colour or not known.grey
            else:
                self.unreadable[number] = known
        files = self.found.take(np.array(kept, np.int64))
        read = [known for name in files.names if isinstance(known := facts[name], Facts)]
        store = file_store(Folder(self.root), Scan(files, facts_table(read), [], Counter()), [])
        store.whole = len(self.names)
        if self._colour:
            store.grey[:] = False  # grey images are treated as those in colour beside them
        rows = np.arange(len(kept), dtype=np.int64)
        return ImageSet(store, rows, np.full(len(kept), -1), (), source=self.source), kept

    def _known(self, numbers: list[int]) -> dict[str, Facts | str]:
        if self._facts is None:
            self._facts = dict(remembered_facts(self.root, self.found))
        facts = self._facts
        unknown = [self.names[n] for n in numbers if self.names[n] not in facts]
        if unknown:
            facts.update(inspect_files(self.root, unknown))
        return facts

    def finished(self) -> None:
        if self._facts is not None and len(self._facts) >= len(self.found):
            remember_facts(self.root, self.found, self._facts)


class SetPhotos(Photos):
    """The images of an ImageSet."""

    def __init__(self, images: "ImageSet") -> None:
        super().__init__()
        self.of = images
        self.source = images.source
        self.names = images.names
        self.root = Path(images.store.source or ".")
        self._pixels_lock = threading.Lock()

    def _pixels(self, number: int, side: int) -> np.ndarray:
        from handful.data.in_memory import PictureStore
        from handful.data.store import ArrayStore, FileStore

        store, row = self.of.store, int(self.of.rows[number])
        if isinstance(store, FileStore):
            return store.picture(row, side)
        if isinstance(store, PictureStore):
            image = Image.fromarray(store.picture(row))
        else:
            assert isinstance(store, ArrayStore)
            pixels = store.images[row]
            image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        return np.asarray(image)

    def images(self, numbers: list[int]) -> "tuple[ImageSet, list[int]]":
        some = self.of[np.array(numbers, np.int64)]
        return some.with_labels(np.full(len(some), -1)), numbers


def encoded(pixels: np.ndarray) -> Picture:
    """(H, W) or (H, W, 3) uint8 as PNG if small, else as JPEG, with nothing but pixels in it."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    file = io.BytesIO()
    if max(image.size) <= SHARP:
        image.save(file, "PNG")
        return Picture(file.getvalue(), "image/png")
    image.save(file, "JPEG", quality=88)
    return Picture(file.getvalue(), "image/jpeg")
