"""Predictions of photos in a bucket: by one process, by shards, and on a cluster."""

from typing import Any

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown

WAYS = {
    "one process": "one process",
    "shards": "four shards and `merge`",
    "ray, few": "`--on ray`, two workers",
    "ray": "`--on ray`, two workers",
    "ray, killed and failing": "… a worker killed, 1 % of the reads fail",
}


def bucket() -> str:
    """Peak memory of each way, and whether its rows are those of one process."""
    line = record.final("ray", "predict")[-1]
    rows = [_row(line, way, words) for way, words in WAYS.items() if way in line["figures"]]
    header = ["", "images", "Parquet rows", "memory of the largest process", "of the command"]
    return markdown(header, rows)


def _row(line: dict[str, Any], way: str, words: str) -> list[str]:
    figures = line["figures"][way]
    rows = "those of one process" if figures["equal"] else "**others**"
    if way == "one process":
        rows = "–"
    if "failed_gets" in figures:
        words += f" ({figures['failed_gets']:,})"
    of_command = figures.get("peak_mb_of_command")
    command = "–" if of_command is None else f"{of_command:,.0f} MB"
    return [
        words,
        f"{figures.get('images', line['images']):,}",
        rows,
        f"{figures['peak_mb']:,.0f} MB",
        command,
    ]
