"""Show `Findings` on the screen: a few lines and one table."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from handful.data.decoding.unread_formats import by_ending
from handful.data.findings import ClassCount, Findings
from handful.text import for_terminal

CLASSES = 20  # rows shown, at most; the page and --json have all
BAR = 30  # characters of the longest bar


def summary(findings: Findings) -> RenderableType:
    """The findings as a rich renderable: counts, table of classes, problems."""
    lines = [Text(for_terminal(line)) for line in (overview(findings), pixel_summary(findings))]
    if others := by_ending(findings.other):
        lines.append(Text(for_terminal(others)))
    problems = [
        Text.assemble(
            ("! " if problem.serious else "- ", _style(problem.serious)), for_terminal(problem.text)
        )
        for problem in findings.problems
    ]
    if not problems:
        problems = [Text("Nothing wrong was found.", "green")]
    table = [_class_table(findings.classes)] if findings.classes else []
    notes = [Text(note)] if (note := near_note(findings)) else []
    return Group(*lines, *table, *problems, *notes)


def overview(findings: Findings) -> str:
    """One line with the numbers of images, labelled images and test images."""
    parts = f"{findings.labeled:,} labelled, {findings.unlabeled:,} unlabelled"
    test = f", and {findings.test:,} to test on" if findings.test else ""
    return f"{findings.source}: {findings.images:,} images ({parts}){test}"


def pixel_summary(findings: Findings) -> str:
    """One line with the sizes and colours of the images, and the treatments in decoding."""
    height, width = findings.median
    if findings.smallest == findings.largest:
        size = f"{width} x {height} pixels"
    else:
        small, large = findings.smallest, findings.largest
        size = (
            f"{width} x {height} pixels in the middle, from {small[1]} x {small[0]} "
            f"to {large[1]} x {large[0]}"
        )
    total = findings.images + findings.test
    colour = "grey" if findings.grey == total else "colour"
    some = f", {findings.grey:,} of them grey" if 0 < findings.grey < total else ""
    return "; ".join([f"{size}, {colour}{some}", *treatments(findings)])


def near_note(findings: Findings) -> str:
    """What near-duplicates were looked for among, if that is not all images; else ""."""
    if findings.near_compared is None:
        return ""
    return (
        f"Near-duplicates: of so many images, each is compared only with the "
        f"{findings.near_compared:,} that are likeliest to look like it, so a few may be "
        f"missing."
    )


def treatments(findings: Findings) -> list[str]:
    """Each treatment in decoding with its number of images, as phrases."""
    return [f"{TREATMENTS.get(note, note)}: {count:,}" for note, count in findings.decoded.items()]


TREATMENTS = {
    "alpha": "transparent parts put on white",
    "alpha on black": "transparent parts put on black, because white shows no contrast",
    "ignored alpha": "fully transparent, shown without transparency",
    "truncated": "truncated JPEG",
    "16-bit": "16 bits scaled to 8",
    "rotated": "turned upright by EXIF",
    "cmyk": "CMYK converted to RGB",
    "first frame": "first frame of an animation",
    "ending": "content is not what the ending says",
    "large": "large JPEG compared at an eighth of its size",
}


def _class_table(classes: tuple[ClassCount, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("labelled", justify="right")
    table.add_column("test", justify="right")
    table.add_column("")
    most = max((count.labeled for count in classes), default=0) or 1
    for count in classes[:CLASSES]:
        bar = "█" * round(BAR * count.labeled / most)
        table.add_row(
            Text(for_terminal(count.name)),
            f"{count.labeled:,}",
            f"{count.test:,}",
            Text(bar, "cyan"),
        )
    if len(classes) > CLASSES:
        table.add_row(f"… and {len(classes) - CLASSES} more", "", "", "")
    return table


def _style(serious: bool) -> str:
    return "bold red" if serious else "yellow"
