"""Heads on the features of networks at several sizes of image."""

from statistics import mean

from benchmarks.accuracy.network_sizes import FILE
from benchmarks.lib import record
from benchmarks.lib.pools import ALL_SIZES
from benchmarks.lib.tables.backbones import relative_cost
from benchmarks.lib.tables.shown import markdown

_REFERENCE = 160  # pixels: the size at which lite0 takes the time 1


def network_sizes() -> str:
    """A row a network, size and view: its time, and accuracy of the mixture by source."""
    found: dict[tuple[str, int, str], dict[str, list[dict[str, float]]]] = {}
    for line in record.read(FILE):
        source, network, size, view = line["name"].split()
        by_source = found.setdefault((network, int(size), view), {})
        by_source.setdefault(source, []).append(line["figures"])
    sources = [name for name in ALL_SIZES if any(name in by for by in found.values())]
    rows = []
    for network, size, view in sorted(found, key=lambda key: _time(*key)):
        by_source = found[network, size, view]
        rows.append(
            [
                network,
                f"{size}{', mirrored' if view == 'mirrored' else ''}",
                f"{_time(network, size, view):.1f}",
                *(_both(by_source.get(name, [])) for name in sources),
            ]
        )
    return markdown(["network", "pixels", "time", *sources], rows)


def _time(network: str, size: int, view: str) -> float:
    """The time of an image relative to lite0 at 160 pixels; it grows with the pixels."""
    return relative_cost(network) * (size / _REFERENCE) ** 2 * (2 if view == "mirrored" else 1)


def _both(draws: list[dict[str, float]]) -> str:
    """Accuracy with 4 and 10 labels per class; a dash where there is no line."""
    if not draws:
        return "–"
    four, ten = (100 * mean(one[f"gaussian_mixture {count}"] for one in draws) for count in (4, 10))
    return f"{four:.1f} / {ten:.1f}"
