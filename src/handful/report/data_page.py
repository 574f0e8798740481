"""Render `Findings` as one self-contained HTML file, without network or scripts."""

import posixpath
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handful.data import source_names
from handful.data.findings import Findings, Identical, Member, Near
from handful.data.imageset import ImageSet
from handful.files import write_text
from handful.pipeline.thumbnails import data_url, thumbnails
from handful.report.data_summary import near_note, pixel_summary
from handful.report.rendering import rendered
from handful.text import counted, percent

THUMBNAIL = 128  # pixels
RANDOM = 24  # images drawn at random
EXAMPLES = 8  # images shown per class, at most
MOST_IMAGES = 400  # images shown of all classes, at most; but one of each class
MOST_SETS = 40  # sets of duplicates shown, at most
MOST_FOLDERS = 60  # rows of the table of sub-folders, at most
MOST_ROWS = 2000  # rows of a list, at most; data.json has all
SHARP = 48  # pixels: smaller images are shown with sharp pixels


@dataclass(frozen=True)
class Card:
    """An image with its label."""

    source: str  # a data: URL; "" if it is not among the images
    name: str
    part: str  # "labeled", "unlabeled" or "test"
    label: str | None


@dataclass(frozen=True)
class ClassRow:
    """A class with its labels and examples."""

    name: str
    labeled: int
    test: int
    share: float  # number of labels as a share of the largest class's, in percent
    examples: tuple[Card, ...]


@dataclass(frozen=True)
class FolderRow:
    """A sub-folder, and what it was taken for."""

    name: str
    images: int
    taken_for: str


@dataclass(frozen=True)
class ImageRow:
    """Images that are copies of one another, or nearly so."""

    note: str
    cards: tuple[Card, ...]


def render(findings: Findings, images: ImageSet) -> str:
    """The HTML page of the findings.

    Args:
        images: the images that were checked; some are shown as thumbnails.
    """
    members = {member.name: member for member in _members(images)}
    identical, near = findings.identical[:MOST_SETS], (findings.near or ())[:MOST_SETS]
    examples, random = _examples(images), _random(list(members))
    names = [name for row in examples for name in row] + random
    names += [member.name for same in identical for member in same.members[:EXAMPLES]]
    names += [member.name for pair in near for member in (pair.first, pair.second)]
    pictures = _pictures(images, names)

    def cards(shown: Iterable[str]) -> tuple[Card, ...]:
        found = (members.get(name) or Member(name, "", None) for name in shown)
        return tuple(Card(pictures.get(m.name, ""), m.name, m.part, m.label) for m in found)

    most = max((count.labeled for count in findings.classes), default=0) or 1
    folders = _folders(members.values())
    return rendered(
        "data.html",
        findings=findings,
        source=source_names.source_name(findings.source),
        overview=_overview(findings),
        pixel_summary=pixel_summary(findings),
        total=len(members),
        sharp=max(findings.median) <= SHARP,
        random=cards(random),
        folders=folders[:MOST_FOLDERS],
        more_folders=max(0, len(folders) - MOST_FOLDERS),
        classes=[
            ClassRow(count.name, count.labeled, count.test, 100 * count.labeled / most, cards(row))
            for count, row in zip(findings.classes, examples, strict=True)
        ],
        identical=[
            ImageRow(_note(same), cards(m.name for m in same.members[:EXAMPLES]))
            for same in identical
        ],
        near_note=near_note(findings),
        near=[ImageRow(_near_note(p), cards((p.first.name, p.second.name))) for p in near],
        rows=MOST_ROWS,
    )


def _overview(findings: Findings) -> str:
    parts = [counted(findings.labeled, "image") + " with a label"] if findings.labeled else []
    if findings.unlabeled:
        parts.append(counted(findings.unlabeled, "image") + " without a label")
    if findings.test:
        parts.append(counted(findings.test, "image") + " to test on")
    return ", ".join(parts)


def _members(images: ImageSet) -> Iterable[Member]:
    for part in (images, images.test):
        if part is not None:
            for name, label in zip(part.names, part.labels.tolist(), strict=True):
                known = part.classes[label] if label >= 0 else None
                kind = "test" if part is images.test else "labeled" if known else "unlabeled"
                yield Member(name, kind, known)


def _random(names: list[str]) -> list[str]:
    chosen = np.random.default_rng(0).permutation(len(names))[:RANDOM]
    return [names[at] for at in chosen]


def _folders(members: Iterable[Member]) -> list[FolderRow]:
    """The sub-folders with the most images first; none if all images lie in one folder."""
    inside: dict[str, list[Member]] = {}
    for member in members:
        inside.setdefault(posixpath.dirname(member.name), []).append(member)
    if len(inside) < 2:
        return []
    rows = [
        FolderRow(f"{name}/" if name else "(at the top)", len(held), _taken_for(held))
        for name, held in inside.items()
    ]
    return sorted(rows, key=lambda row: (-row.images, row.name))


def _taken_for(members: list[Member]) -> str:
    """What a folder was taken for, by the labels and parts of its images."""
    labels = Counter(member.label for member in members if member.label is not None)
    parts = {member.part for member in members}
    test = "test part, " if parts == {"test"} else "partly test part, " if "test" in parts else ""
    without = sum(member.label is None for member in members)
    if not labels:
        return f"{test}no label"
    what = f"class {next(iter(labels))}" if len(labels) == 1 else f"{len(labels)} classes"
    return f"{test}{what}" + (f"; {without:,} without a label" if without else "")


def _note(same: Identical) -> str:
    said = []
    if same.conflicting:
        said.append("They have different labels.")
    if same.across_test:
        said.append("Some are in the test part, others are not.")
    if len(same.members) > EXAMPLES:
        said.append(f"{EXAMPLES} of {len(same.members)} are shown.")
    return " ".join(said)


def _near_note(pair: Near) -> str:
    across = "; one is in the test part" if pair.across_test else ""
    return f"likeness {percent(pair.likeness)}{across}"


def _examples(images: ImageSet) -> list[list[str]]:
    """For each class, the names of the images to show, drawn at random."""
    each = max(1, min(EXAMPLES, MOST_IMAGES // max(1, images.num_classes)))
    names, rng = images.store.names, np.random.default_rng(0)
    rows_of = [
        rng.permutation(images.rows[images.labels == label])[:each]
        for label in range(images.num_classes)
    ]
    return [[names[row] for row in rows] for rows in rows_of]


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
