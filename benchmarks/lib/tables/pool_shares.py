"""Methods on features where the unlabelled images have other class shares than the labels."""

from statistics import mean

from benchmarks.accuracy.pool_shares import METHODS
from benchmarks.lib import record
from benchmarks.lib.raced import RACED
from benchmarks.lib.tables.shown import Lines, markdown, percent

OTHERS = METHODS[1:]


def _by(part: slice) -> dict[str, Lines]:
    found: dict[str, Lines] = {}
    for line in record.final("pool_shares"):
        source, *cell = line["name"].split()
        key = " ".join([source, " ".join(cell)][part])
        found.setdefault(key, []).append(line)
    return found


def _gains(lines: Lines) -> list[str]:
    figures = [line["figures"] for line in lines]
    plain = mean(one["features"] for one in figures)
    gains = [100 * (mean(one[name] for one in figures) - plain) for name in OTHERS]
    return [percent(plain), *(f"{gain:+.1f}" for gain in gains)]


def pool_shares() -> str:
    """Of each kind of pool the mean over sources and draws: `features`, and what others add."""
    rows = []
    for cell, lines in _by(slice(1, 2)).items():
        figures = [line["figures"] for line in lines]
        apart = [
            f"{mean(one[key] for one in figures):.2f}" for key in ("labels_apart", "shares_apart")
        ]
        inside = percent(mean(one["shares_inside"] for one in figures))
        rows.append([cell, len(lines), *_gains(lines), *apart, inside])
    header = ["pool, labels, per class", "draws", "features", *OTHERS]
    return markdown([*header, "labels' shares off", "estimated shares off", "in interval"], rows)


def pool_shares_by_source() -> str:
    """Of each source and kind of pool the mean over draws: `features`, and what others add."""
    rows = [[cell, len(lines), *_gains(lines)] for cell, lines in _by(slice(0, 2)).items()]
    return markdown(["source, pool, labels, per class", "draws", "features", *OTHERS], rows)


def pool_shares_auto() -> str:
    """Of each kind of pool the best single head in the mean, and the head that `auto` selects."""
    rows = []
    for cell, lines in _by(slice(1, 2)).items():
        figures = [line["figures"] for line in lines if "auto" in line["figures"]]
        if figures:
            means = {name: mean(one[name] for one in figures) for name in ("auto", *RACED)}
            best = max(RACED, key=means.__getitem__)
            behind = f"{100 * (means['auto'] - means[best]):+.1f}"
            ahead = f"{100 * (means['auto'] - means['features']):+.1f}"
            shown = [f"`{best}`", percent(means[best]), percent(means["auto"]), behind, ahead]
            rows.append([cell, len(figures), *shown])
    header = ["pool, labels, per class", "draws", "best head", "its accuracy", "auto"]
    return markdown([*header, "against the best", "against `features`"], rows)
