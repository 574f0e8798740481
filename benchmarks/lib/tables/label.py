"""The labelling page: keys, sessions, times, crashes."""

from typing import Any

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown


def _lines(start: str) -> list[dict[str, Any]]:
    """The last final line of every name that begins so."""
    found = {x["name"]: x for x in record.read("label") if x["kind"] == "final"}
    return [line for name, line in found.items() if name.startswith(start)]


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def keys() -> str:
    """Keys per label of an annotator who knows the labels."""
    ways = {"one": "one by one", "tiles": "with pages as offered"}
    rows = []
    for line in _lines("keys "):
        _, source, way, *size = line["name"].split()
        figures = line["figures"]
        shown = ways[way] + (f", {size[0]} tiles" if size else "")
        labels = f"{figures['labels']:,} of {figures['images']:,}"
        each = f"{figures['keys_per_label']:.2f}"
        rows.append([source, shown, labels, each, figures["pages"], figures["blind"]])
    return markdown(
        ["images", "how", "labels", "keys per label", "pages", "random and blind"], rows
    )


def label_sessions() -> str:
    """How often the interval of a session held the truth."""
    rows = []
    for start, annotator in (("coverage ", "always right"),
                             ("follow ", "takes a wrong suggestion one time in five")):  # fmt: skip
        for line in _lines(start):
            figures = line["figures"]
            inside = (
                f"{_percent(figures['inside'], 0)} "
                f"({100 * figures['inside_low']:.0f} to {100 * figures['inside_high']:.0f})"
            )
            rows.append([line["name"].removeprefix(start), annotator, figures["sessions"],
                         figures["blind_labels"], inside, f"{100 * figures['error']:+.1f}",
                         f"{100 * figures['width']:.0f}", figures["wrong_labels"]])  # fmt: skip
    return markdown(
        ["images", "annotator", "sessions", "blind labels", "truth inside (95 % interval)",
         "mean error, points", "mean width, points", "wrong labels"], rows,
    )  # fmt: skip


def curve() -> str:
    """Accuracy by number of labels, in the page's order and in random order."""
    rows = []
    for line in _lines("curve "):
        figures = line["figures"]
        for at, count in enumerate(figures["labels"]):
            rows.append([line["name"].removeprefix("curve "), count,
                         _percent(figures["page"][at]), _percent(figures["random"][at]),
                         f"{100 * figures['difference'][at]:+.1f} \u00b1 "
                         f"{100 * figures['spread'][at]:.1f}"])  # fmt: skip
    return markdown(["images", "labels", "page", "random", "difference, points"], rows)


def times() -> str:
    """How long one waits."""
    rows = []
    for line in _lines("first image "):
        figures = line["figures"]
        rows.append([f"first image of {figures['images']:,} ({figures['side']} pixels a side), "
                     f"worst of {len(figures['seconds'])}",
                     f"{figures['seconds_worst']:.1f} s",
                     f"{figures['memory_mb_after_20_s']:,} MB after 20 s"])  # fmt: skip
    for line in _lines("key to image"):
        figures = line["figures"]
        rows.append([f"key to next image while features are made, {figures['labels']} labels",
                     f"{figures['p95_ms']:.0f} ms (95 % of keys)",
                     f"median {figures['median_ms']:.0f} ms"])  # fmt: skip
    for line in _lines("refit"):
        for name, seconds in line["figures"].items():
            _, images, _, labels, _ = name.split("_")
            rows.append([f"refit and new order, {int(images):,} images, {int(labels):,} labels",
                         f"{seconds:.1f} s", "processor time, one thread"])  # fmt: skip
    return markdown(["what", "time", ""], rows)


def safe() -> str:
    """Crashes, a full disk, accessibility."""
    rows = []
    for line in _lines("kills"):
        f = line["figures"]
        what = f"{f['kills']} SIGKILLs, {f['acknowledged']:,} images with acknowledged labels"
        rows.append([what, f"{f['lost']} lost"])
        rows.append([f"labels.csv looked at {f['label_files_looked_at']:,} times meanwhile",
                     f"{f['torn']} torn"])  # fmt: skip
        what = (
            f"full disk: {f['full_disk_acknowledged']:,} acknowledged, {f['full_disk_refused']} "
            f"refused with the reason, {f['after_making_room']} after making room"
        )
        rows.append([what, f"{f['full_disk_lost']} lost"])
    for line in _lines("accessibility"):
        f = line["figures"]
        rows.append([f"axe-core on {f['views']} views (desktop, phone, dark, 200 classes)",
                     f"{f['serious_or_critical']} serious findings"])  # fmt: skip
    return markdown(["what", "found"], rows)
