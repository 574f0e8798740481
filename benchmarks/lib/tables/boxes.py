"""Crops of boxes against whole frames."""

from statistics import mean

from benchmarks.lib import record
from benchmarks.lib.tables.shown import percent


def boxes_in_words() -> str:
    """One sentence: both accuracies, and the least difference of a draw."""
    found = {name: record.final("boxes", name) for name in ("whole frames", "crops")}
    shares = {
        name: [line["figures"]["accuracy"] for line in lines] for name, lines in found.items()
    }
    whole, crops = shares["whole frames"], shares["crops"]
    apart = [100 * (b - a) for a, b in zip(whole, crops, strict=True)]
    first = found["crops"][0]["figures"]
    return (
        f"On 300 synthetic camera frames with a photograph of a hand in each, {first['labels']} "
        f"labels for ten classes: {percent(mean(crops))} right by crops and {percent(mean(whole))} "
        f"by whole frames, on {first['n_test']} other frames (mean of {len(crops)} draws; "
        f"{mean(apart):.0f} points apart, {min(apart):.0f} in the least draw).\n"
    )
