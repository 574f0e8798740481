"""`Findings` as one HTML file: self-contained, readable without network or JavaScript."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from handful.data.findings import Findings, Identical, Member, Near, valid_unicode
from handful.data.imageset import ImageSet
from handful.files import write_text
from handful.report.data_summary import looks, overview

THUMBNAIL = 64  # pixels
EXAMPLES = 8  # images shown of a class
MOST_IMAGES = 800  # inline images of the classes, but for one of each where classes are more
MOST_SETS = 40  # sets of duplicates shown with their images
MOST_ROWS = 2000  # rows of a list; --json has all


@dataclass(frozen=True)
class Picture:
    """An inline image and what is written under it."""

    source: str  # a data: URL
    caption: str


@dataclass(frozen=True)
class ClassRow:
    name: str
    labeled: int
    test: int
    share: float  # of the largest class, in percent
    examples: tuple[Picture, ...]


def render(findings: Findings, images: ImageSet) -> str:
    """The page as text. `images` are the ones that were checked; some become thumbnails."""
    shown = findings.identical[:MOST_SETS]
    near = (findings.near or ())[:MOST_SETS]
    wanted = _examples(images)
    names = [name for row in wanted for name in row]
    names += [member.name for same in shown for member in same.members[:EXAMPLES]]
    names += [member.name for pair in near for member in (pair.first, pair.second)]
    thumbnails = _thumbnails(images, names)
    most = max((count.labeled for count in findings.classes), default=0) or 1
    classes = [
        ClassRow(count.name, count.labeled, count.test, 100 * count.labeled / most,
                 tuple(Picture(thumbnails[name], name) for name in row))
        for count, row in zip(findings.classes, wanted, strict=True)
    ]  # fmt: skip
    page = Environment(
        loader=PackageLoader("handful.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("data.html")
    return valid_unicode(
        page.render(
            findings=findings,
            overview=overview(findings),
            looks=looks(findings),
            classes=classes,
            identical=[_identical_pictures(same, thumbnails) for same in shown],
            near=[_near_pictures(pair, thumbnails) for pair in near],
            rows=MOST_ROWS,
        )
    )


def _examples(images: ImageSet) -> list[list[str]]:
    """Names of the images shown of each class."""
    each = max(1, min(EXAMPLES, MOST_IMAGES // max(1, images.num_classes)))
    names = images.store.names
    rows_of = [images.rows[images.labels == label][:each] for label in range(images.num_classes)]
    return [[names[row] for row in rows] for rows in rows_of]


def _identical_pictures(same: Identical, thumbnails: dict[str, str]) -> list[Picture]:
    return [_picture(member, thumbnails) for member in same.members[:EXAMPLES]]


def _near_pictures(pair: Near, thumbnails: dict[str, str]) -> list[Picture]:
    return [_picture(member, thumbnails) for member in (pair.first, pair.second)]


def _picture(member: Member, thumbnails: dict[str, str]) -> Picture:
    caption = f"{member.name} · {member.part}" + (f" · {member.label}" if member.label else "")
    return Picture(thumbnails.get(member.name, ""), caption)


def _thumbnails(images: ImageSet, names: list[str]) -> dict[str, str]:
    """name → data: URL, of images in the training or the test part."""
    wanted = set(names)
    found: dict[str, str] = {}
    for part in (images, images.test):
        if part is None:
            continue
        positions = np.array([at for at, name in enumerate(part.names) if name in wanted], np.int64)
        chosen = part[positions]
        batches = chosen.stream(THUMBNAIL, "pad", channels=part.channels)
        pictures = (picture for batch in batches for picture in batch.numpy())
        found.update(
            {name: _url(pixels) for name, pixels in zip(chosen.names, pictures, strict=True)}
        )
    return found


def _url(pixels: np.ndarray) -> str:
    """(C, H, W) uint8 as an inline JPEG."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def write_page(findings: Findings, images: ImageSet, path: Path) -> None:
    """Write the page of `render` to a file."""
    write_text(path, render(findings, images))
