"""Plot the training curves of several runs of one recipe, with the band of all runs, as SVG."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handful.files import beside

History = Sequence[Mapping[str, float]]  # one entry per evaluation, as in history.jsonl
PANELS = (  # title, key in history, factor
    ("training loss", "train_loss", 1),
    ("validation loss", "validation_loss", 1),
    ("training accuracy, %", "train_accuracy", 100),
    ("validation accuracy, %", "validation_accuracy", 100),
)


def read_history(folder: Path) -> History:
    """Read history.jsonl of a run: the metrics of every evaluation."""
    text = (folder / "history.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def plot_curves(histories: Mapping[int, History], path: Path, title: str) -> None:
    """Plot every run as a thin line, the mean as a thick line, and the band from lowest to highest.

    Args:
        histories: seed → history. A metric that some run lacks has no panel.
        path: of the SVG file to write.
    """
    panels = [
        panel for panel in PANELS if all(len(_points(h, panel[1])) for h in histories.values())
    ]
    rows = max(1, -(-len(panels) // 2))
    with matplotlib.rc_context({"svg.hashsalt": "handful", "svg.fonttype": "none"}):
        figure = Figure((8, 2.8 * rows), layout="constrained")
        figure.suptitle(title)
        grid = figure.subplots(rows, 2, squeeze=False).ravel()
        for axes, (name, key, factor) in zip(grid, panels, strict=False):
            _draw(axes, [_points(history, key) for history in histories.values()], factor)
            axes.set_title(name, fontsize=10)
            axes.set_xlabel("step")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        with beside(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _points(history: History, key: str) -> np.ndarray:
    """Steps and values (evaluations, 2) of one metric."""
    return np.array([(line["step"], line[key]) for line in history if key in line])


def _draw(axes: Axes, runs: list[np.ndarray], factor: float) -> None:
    """Draw one panel; the band ends with the shortest run."""
    shared = min(map(len, runs))
    steps = runs[0][:shared, 0]
    values = factor * np.stack([run[:shared, 1] for run in runs])  # (runs, evaluations)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), alpha=0.25, linewidth=0)
    for run in runs:
        axes.plot(run[:, 0], factor * run[:, 1], linewidth=0.6, color="grey")
    axes.plot(steps, values.mean(axis=0), linewidth=1.8)
    axes.spines[["top", "right"]].set_visible(False)
