"""Training, features and reading files, beside the plain way."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent


def throughput() -> str:
    """Training speed against the plain way, both in one run."""
    rows = []
    for line in record.final("throughput"):
        found = line["figures"]
        rates = [f"{found['ours']:,.0f}", f"{found['plain']:,.0f}", f"{found['ratio']:.2f}"]
        goal = f"{found['goal']:.1f}"
        rows.append([line["name"], *rates, goal, percent(found["share_of_peak"]), line["hardware"]])
    header = ["network", "images/s", "plain way", "ratio", "goal", "of bf16 peak", "on"]
    return markdown(header, rows)


def features_speed() -> str:
    """From files to features, against the plain way, both in one run."""
    rows = []
    for line in record.final("features_speed"):
        found = line["figures"]
        plain = max(found["plain"], found["plain_2_workers"])
        row = [line["name"], f"{found['ours']:.0f}", f"{plain:.0f}", f"{found['ratio']:.2f}"]
        rows.append([*row, f"{found['goal']:.1f}", line["hardware"]])
    return markdown(["network", "images/s", "plain way", "ratio", "goal", "on"], rows)


def photo_folder() -> str:
    """A folder of twelve-megapixel photographs, from files to features, by each engine."""
    rows = []
    for line in record.final("photo_folder"):
        found = line["figures"]
        own = found["peak_mb"] - found["of_which_imports_mb"]
        times = [f"{found['seconds']:.0f}", f"{found['processor_seconds']:.1f}"]
        cells = [line["name"], f"{found['images']:,}", *times]
        rows.append([*cells, found["peak_mb"], own, line["hardware"]])
    header = [
        "engine, network", "photographs", "seconds", "of the processor", "peak MB",
        "without imports", "on",
    ]  # fmt: skip
    return markdown(header, rows)


def ingest() -> str:
    """Opening a folder: seconds and peak memory, beside a loop over the files with PIL."""
    rows = []
    for line in record.final("ingest"):
        for phase, found in line["figures"].items():
            own = found["peak_mb"] - found["of_which_imports_mb"]
            cells = [f"{found['seconds']:.1f}", found["peak_mb"], own]
            rows.append([line["name"], f"{line['files']:,}", phase, *cells])
    header = ["folder", "files", "what", "seconds", "peak MB", "without imports"]
    return markdown(header, rows)


def ingest_in_words() -> str:
    """What the first look at a folder of photographs takes."""
    line = record.final("ingest", "photos")[-1]
    first, again = (
        sum(line["figures"][phase]["seconds"] for phase in (f"open{when}", f"decode{when}"))
        for when in ("", " again")
    )
    return (
        f"Checking and decoding {line['files']:,} photographs of twelve megapixels took "
        f"{first:.0f} seconds the first time and {again:.0f} from then on, on "
        f"{line['hardware'].split(', ')[1]}."
    )
