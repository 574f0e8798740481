"""Render `Findings` as one self-contained HTML file, without network or scripts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handful.data.findings import Findings, Identical, Member, Near
from handful.data.imageset import ImageSet
from handful.files import write_text
from handful.pipeline.thumbnails import data_url, thumbnails
from handful.report.data_summary import overview, pixel_summary
from handful.report.rendering import rendered

THUMBNAIL = 64  # pixels
EXAMPLES = 8  # images shown per class, at most
MOST_IMAGES = 800  # images shown of all classes, at most; but one of each class
MOST_SETS = 40  # sets of duplicates shown, at most
MOST_ROWS = 2000  # rows of a list, at most; --json has all


@dataclass(frozen=True)
class Picture:
    """An inline image with a caption."""

    source: str  # a data: URL
    caption: str


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes."""

    name: str
    labeled: int
    test: int
    share: float  # number of labels as a share of the largest class's, in percent
    examples: tuple[Picture, ...]


def render(findings: Findings, images: ImageSet) -> str:
    """The HTML page of the findings.

    Args:
        images: the images that were checked; some are shown as thumbnails.
    """
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
        pixel_summary=pixel_summary(findings),
        classes=classes,
        identical=[_identical_pictures(same, pictures) for same in shown],
        near=[_near_pictures(pair, pictures) for pair in near],
        rows=MOST_ROWS,
    )


def _examples(images: ImageSet) -> list[list[str]]:
    """For each class, the names of the images to show."""
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
    """Name → data: URL of images in the training or the test part."""
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
