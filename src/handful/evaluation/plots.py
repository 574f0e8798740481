"""Plot an evaluation."""

import os
import warnings
from pathlib import Path

import numpy as np

from handful.evaluation.metrics import Evaluation


def plot_confusion(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Draw the confusion matrix as an SVG: colour is the share of a label's images, text the count.

    With more than 25 classes there is no room for counts, and only the colours are drawn.
    """
    import matplotlib  # slow to import, and not needed to predict
    from matplotlib.figure import Figure

    counts, classes = evaluation.confusion, [_short(name) for name in evaluation.classes]
    k = len(classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (K, K)
    side = min(3 + 0.4 * k, 14)  # inches
    font = 9 if k <= 25 else max(4.0, 72 * 0.75 * side / k * 0.8)  # points: a row is 0.75 side / K

    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(k), classes, rotation=90, fontsize=font, parse_math=False)
    axes.set_yticks(range(k), classes, fontsize=font, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("label")
    if k <= 25:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=font)

    # Text stays text: the file is small and searchable, and the viewer's fonts draw names in any
    # script. Hence warnings about glyphs that the font used for measuring lacks are ignored.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "handful"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(Path(path), format="svg", metadata={"Date": None})


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
