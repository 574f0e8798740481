"""Draw plots as inline SVG that takes its colours and its font from the page.

Every plot is narrow enough for a phone; a page sets several side by side. Plots are drawn in
placeholder colours that are replaced by CSS variables, so they suit a light and a dark page.

A plot's key is HTML, made from its `entries`, so that it wraps and its names are escaped like all
other text.
"""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from handful.evaluation.metrics import accuracy_interval

WIDTH = 380  # of a plot, in CSS pixels
HEIGHT = 230
COLOURS = 6  # colours of series; further series repeat them
INK, SOFT, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", PAPER: "paper"} | {
    f"#0501{k:02x}": f"series-{k + 1}" for k in range(COLOURS)
}
_DASHES = ("", "5 2.5", "1.5 2")  # dash patterns of series; further series repeat them
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks, times a power of ten
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


class Entry(NamedTuple):
    """A line of a plot's key."""

    text: str
    colour: str  # a CSS variable
    dashes: str  # an SVG dash pattern
    dot: bool  # whether the series is drawn as dots


@dataclass(frozen=True)
class Plot:
    """A plot with its title, key and note."""

    title: str
    svg: Markup
    entries: tuple[Entry, ...] = ()
    note: str = ""


class Series(NamedTuple):
    """A named curve or group of points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Bins(NamedTuple):
    """Predictions grouped by confidence; no group is empty."""

    name: str
    confidence: Sequence[float]  # mean of each group
    accuracy: Sequence[float]  # share of right predictions in each group
    n: Sequence[int]  # predictions in each group


class Row(NamedTuple):
    """A row of a dot plot: values, their mean and its interval, if there is one."""

    name: str
    values: Sequence[float]
    mean: float
    low: float | None
    high: float | None
    colour: int  # index of the colour


def lines(title: str, series: Sequence[Series], share: bool = False, note: str = "") -> Plot:
    """Plot curves over training steps.

    Args:
        share: whether the values are shares, shown in percent. Other values are shown on a log
            scale if they span more than a factor of 30.
    """
    figure, axes = _figure(HEIGHT, left=46, bottom=36)
    for index, (_, x, y) in enumerate(series):
        values = [100 * value for value in y] if share else list(y)
        marker = "o" if len(values) <= 15 else ""
        axes.plot(
            x, values, color=_colour(index), marker=marker, markersize=3.2, linewidth=1.7,
            dashes=_dashes(index) or (None, None),
        )  # fmt: skip
    every = [value for one in series for value in one.y]
    if share:
        axes.set_ylim(-3, 103)
        _percent(axes.yaxis)
    elif min(every) > 0 and max(every) > 30 * min(every):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _above(axes, "log scale")
    axes.set_xlabel("step", loc="right")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    entries = tuple(_entry(one.name, index) for index, one in enumerate(series))
    return Plot(
        title, _svg(figure, f"{title}: {', '.join(one.name for one in series)}"), entries, note
    )


def reliability(title: str, parts: Sequence[Bins], note: str = "") -> Plot:
    """Plot accuracy against confidence; dots grow with the number of images.

    Whiskers are Wilson's intervals at 90 %.
    """
    figure, axes = _figure(310, left=46, bottom=40)
    axes.plot([0, 100], [0, 100], color=SOFT, linewidth=1, dashes=(4, 3))
    for index, part in enumerate(parts):
        most = max(part.n)
        for confidence, accuracy, n in zip(part.confidence, part.accuracy, part.n, strict=True):
            ends = accuracy_interval(round(accuracy * n), n)
            axes.plot(
                [100 * confidence] * 2, [100 * end for end in ends],
                color=_colour(index), linewidth=1, alpha=0.6,
            )  # fmt: skip
            axes.plot(
                100 * confidence, 100 * accuracy, "o", color=_colour(index), alpha=0.85,
                markersize=4 + 9 * (n / most) ** 0.5, markeredgewidth=0,
            )  # fmt: skip
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.set_xlabel("confidence", loc="right")
    _above(axes, "accuracy (how often right)")
    entries = tuple(_entry(part.name, index, dot=True) for index, part in enumerate(parts))
    return Plot(title, _svg(figure, title), entries, note)


def dots(title: str, rows: Sequence[Row], xlabel: str, zero: bool = False, note: str = "") -> Plot:
    """Plot every value as a dot, in a row per name, and below it the mean with its interval.

    Args:
        zero: draw a line at 0, for differences.
    """
    height = 52 + 44 * len(rows)
    figure, axes = _figure(height, left=14, bottom=38, top=6)
    for place, row in enumerate(rows):
        colour = _colour(row.colour)
        values = [100 * value for value in row.values]
        axes.plot(
            values, [place] * len(values), "o", color=colour, alpha=0.5, markersize=6.5, mew=0
        )
        if row.low is not None and row.high is not None:
            ends = [100 * row.low, 100 * row.high]
            axes.plot(ends, [place + 0.24] * 2, color=colour, linewidth=2.6, solid_capstyle="butt")
        axes.plot(100 * row.mean, place + 0.24, "D", color=colour, markersize=5, mec=PAPER, mew=1)
        axes.annotate(
            plain(row.name), (0, place - 0.3), xycoords=("axes fraction", "data"), color=INK,
            va="center", fontsize=11.5, parse_math=False,
        )  # fmt: skip
    axes.set_ylim(len(rows) - 0.45, -0.6)
    axes.set_yticks([])
    axes.margins(x=0.06)
    if zero:
        axes.update_datalim([(0, 0)])
        axes.autoscale_view()
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    _rule(axes, [at for at in axes.get_xticks() if at or not zero], len(rows), LINE, 0.8)
    if zero:
        _rule(axes, [0], len(rows), SOFT, 1)
    axes.set_xlabel(xlabel, loc="right")
    return Plot(title, _svg(figure, f"{title}: {', '.join(row.name for row in rows)}"), note=note)


def _rule(axes: Axes, at: Sequence[float], rows: int, colour: str, width: float) -> None:
    """Draw vertical lines behind the values of each row, and not behind its name."""
    low, high = axes.get_xlim()
    for x in at:
        if low <= x <= high:
            for place in range(rows):
                ends = [place - 0.12, place + 0.42]
                axes.plot([x, x], ends, color=colour, linewidth=width, zorder=0)
    axes.set_xlim(low, high)


def scatter(title: str, groups: Sequence[tuple[Series, int]], note: str = "") -> Plot:
    """Plot accuracy against time on a log scale: a dot per fit, a diamond per mean.

    Args:
        groups: each series, whose x is in seconds, with the index of its colour.
    """
    figure, axes = _figure(300, left=46, bottom=40)
    longest = max(x for (_, seconds, _), _ in groups for x in seconds)
    unit, word = (1, "seconds") if longest < 100 else (60, "minutes")
    every = []
    for (_, seconds, accuracy), index in groups:
        colour = _colour(index)
        times, values = [x / unit for x in seconds], [100 * value for value in accuracy]
        every += times
        axes.plot(times, values, "o", color=colour, alpha=0.45, markersize=6, mew=0)
        mean = float(np.exp(np.mean(np.log(times)))), float(np.mean(values))
        axes.plot(*mean, "D", color=colour, markersize=7.5, mec=PAPER, mew=1.2)
    axes.set_xscale("log")
    if max(every) < 8 * min(every):
        middle = (max(every) * min(every)) ** 0.5
        axes.set_xlim(middle / 4, middle * 4)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
    axes.xaxis.set_minor_locator(LogLocator(subs=(), numticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _percent(axes.yaxis)
    axes.set_xlabel(f"{word} of one fit", loc="right")
    _above(axes, "accuracy")
    entries = tuple(_entry(series.name, index, dot=True) for series, index in groups)
    return Plot(title, _svg(figure, title), entries, note)


def plain(text: str) -> str:
    """The text with control characters and surrogates, which XML forbids, replaced."""
    return "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" else "\ufffd" for c in text)


def variable(index: int) -> str:
    """The CSS variable of the colour of a series."""
    return f"series-{index % COLOURS + 1}"


def _entry(name: str, index: int, dot: bool = False) -> Entry:
    return Entry(name, variable(index), _DASHES[index % len(_DASHES)], dot)


def _colour(index: int) -> str:
    return f"#0501{index % COLOURS:02x}"


def _dashes(index: int) -> tuple[float, ...]:
    return tuple(float(length) for length in _DASHES[index % len(_DASHES)].split())


def _percent(axis: matplotlib.axis.Axis) -> None:
    axis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def _above(axes: Axes, text: str) -> None:
    """Label the vertical axis with horizontal text above it, right of the numbers at the axis."""
    axes.set_title(text, loc="left", fontsize=11, color=SOFT, x=0.01)


def _figure(height: int, left: int, bottom: int, top: int = 22) -> tuple[Figure, Axes]:
    """An empty plot with fixed margins in CSS pixels: measuring text would take longer."""
    figure = Figure(figsize=(WIDTH / 72, height / 72))
    inside = (left / WIDTH, bottom / height, 1 - (left + 12) / WIDTH, 1 - (top + bottom) / height)
    axes = figure.add_axes(inside)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(SOFT)
    axes.tick_params(colors=SOFT, labelcolor=SOFT, labelsize=11, length=0, pad=5)
    axes.tick_params(which="minor", length=0)
    axes.xaxis.label.set(color=SOFT, fontsize=11)
    return figure, axes


def _svg(figure: Figure, described: str) -> Markup:
    """The figure as an SVG element for an HTML page.

    Matplotlib's output is parsed and serialised again, so only shapes and escaped text remain.
    """
    text = io.StringIO()
    context: Any = {"svg.fonttype": "none", "svg.hashsalt": plain(described)}
    with matplotlib.rc_context(context), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(text, format="svg", metadata={"Date": None})
    return _clean(text.getvalue(), plain(described))


def _clean(text: str, described: str) -> Markup:
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = set(
        re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for v in e.attrib.values()))
    )
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
        if f"{{{_LINK}}}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{{{_LINK}}}href"))
        for key in ("style", "fill", "stroke"):
            if key in element.attrib:
                element.set(key, _styled(element.attrib[key]))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", described)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _styled(style: str) -> str:
    """Replace placeholder colours by CSS variables, and remove the font family."""
    style = re.sub(r"font-family:[^;]*;?", "", style)
    style = re.sub(r"font: (?:[\w.%-]+ )*?([\d.]+px) [^;]*", r"font-size: \1", style)
    return re.sub(
        r"#[0-9a-f]{6}",
        lambda m: f"var(--{_VARIABLES[m[0]]})" if m[0] in _VARIABLES else m[0],
        style,
    )
