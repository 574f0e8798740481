"""What probes read off frozen encoders."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import Lines, markdown, mean_spread
from handful.evaluation.probes import PROBES


def probes() -> str:
    """What three probes read off each frozen encoder, over seeds of encoder and probe."""
    found: dict[str, Lines] = {}
    for line in record.final("probes"):
        found.setdefault(line["name"], []).append(line)
    rows = []
    for name, lines in found.items():
        figures = [line["figures"] for line in lines]
        read = [mean_spread([one[probe] for one in figures]) for probe in PROBES]
        rows.append([name, len(lines), figures[-1]["features"], *read])
    return markdown(["encoder", "seeds", "features", *PROBES], rows)
