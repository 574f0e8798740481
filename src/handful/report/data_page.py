"""`Findings` as one HTML file: self-contained, readable without network or JavaScript."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handful.data.findings import Findings, Identical, Member, Near
from handful.data.imageset import ImageSet
from handful.files import write_text
from handful.pipeline.thumbnails import data_url, thumbnails
from handful.report.data_summary import looks, overview
from handful.report.rendering import rendered

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
    pictures = _pictures(images, names)
    most = max((count.labeled for count in findings.classes), default=0) or 1
    classes = [
        ClassRow(count.name, count.labeled, count.test, 100 * count.labeled / most,
                 tuple(Picture(pictures[name], name) for name in row))
        for count, row in zip(findings.classes, wanted, strict=True)
    ]  # fmt: skip
    return rendered(
        "data.html",
        findings=findings,
        overview=overview(findings),
        looks=looks(findings),
        classes=classes,
        identical=[_identical_pictures(same, pictures) for same in shown],
        near=[_near_pictures(pair, pictures) for pair in near],
        rows=MOST_ROWS,
    )


def _examples(images: ImageSet) -> list[list[str]]:
    """Names of the images shown of each class."""
    each = max(1, min(EXAMPLES, MOST_IMAGES // max(1, images.num_classes)))
    names = images.store.names
    rows_of = [images.rows[images.labels == label][:each] for label in range(images.num_classes)]
    return [[names[row] for row in rows] for rows in rows_of]


def _identical_pictures(same: Identical, pictures: dict[str, str]) -> list[Picture]:
    return [_picture(member, pictures) for member in same.members[:EXAMPLES]]


def _near_pictures(pair: Near, pictures: dict[str, str]) -> list[Picture]:
    return [_picture(member, pictures) for member in (pair.first, pair.second)]


def _picture(member: Member, pictures: dict[str, str]) -> Picture:
    caption = f"{member.name} · {member.part}" + (f" · {member.label}" if member.label else "")
    return Picture(pictures.get(member.name, ""), caption)


def _pictures(images: ImageSet, names: list[str]) -> dict[str, str]:
    """name → data: URL, of images in the training or the test part."""
    wanted = set(names)
    found: dict[str, str] = {}
    for part in (images, images.test):
        if part is not None:
            chosen = part[np.isin(part.names, list(wanted))] if wanted else part[:0]
            found |= {n: data_url(one) for n, one in thumbnails(chosen, THUMBNAIL, "pad").items()}
    return found


def write_page(findings: Findings, images: ImageSet, path: Path) -> None:
    """Write the page of `render` to a file."""
    write_text(path, render(findings, images))
