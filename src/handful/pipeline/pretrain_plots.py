"""Plots of a self-supervised pre-training, as PNG files.

`views.png`: augmented views of some images; `channels.png`: light and colour of some images;
`painted-STEP.png`: reconstructions of an autoencoder at each evaluation; `curves.png`: loss and
feature statistics over the steps; `map.png`: features of some images in the plane, coloured by
label.

Letters in shapes: N and n images, C channels, S the side in pixels, D features.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from handful import devices
from handful.data.splits import evenly_spaced
from handful.evaluation.representation import representation
from handful.files import beside
from handful.methods.autoencoder import EncoderDecoder
from handful.methods.base import Batch, Task
from handful.models.split import Split

COLUMNS = 8  # images side by side
MAPPED = 1_500  # images on the map, labelled ones first
_ZOOM = 64  # minimum side of a drawn image, in pixels


class PretrainPlots:
    """Writes the plots of one pre-training to a folder; without curves and map if `brief`."""

    def __init__(self, folder: Path, task: Task, brief: bool = False) -> None:
        self.folder, self.task, self.brief = folder, task, brief
        sampled = evenly_spaced(task.training_pool, COLUMNS)
        self.samples = task.pixels[sampled].float() / 255  # (COLUMNS, C, S, S)

    def before_training(self, model: nn.Module, batch: Batch) -> None:
        """Write views.png of the first batch, and channels.png for a split backbone."""
        rows = [view[:COLUMNS] for view in batch.unlabeled]
        assert batch.unlabeled_ids is not None
        plain = self.task.pixels[batch.unlabeled_ids[:COLUMNS]].float() / 255
        save_grid([plain, *rows], self.folder / "views.png")
        if isinstance(model.backbone, Split):
            save_channels(model.backbone, self.samples, self.folder / "channels.png")

    def at_evaluation(self, model: nn.Module, step: int) -> None:
        """Write the reconstructions of an autoencoder; nothing for other methods."""
        if isinstance(model, EncoderDecoder):
            with torch.inference_mode():
                painted = model.eval()(self.samples.to(devices.device())).float()
            save_grid([self.samples, painted], self.folder / f"painted-{step:06}.png")

    def after_training(self, model: nn.Module, history: Sequence[dict[str, float]]) -> None:
        """Write curves.png and map.png, unless `brief`."""
        if self.brief:
            return
        save_curves(history, self.folder / "curves.png")
        known, unlabeled = self.task.labeled[:MAPPED], self.task.training_pool
        others = unlabeled[~torch.isin(unlabeled, known)]
        positions = torch.cat([known, evenly_spaced(others, MAPPED - len(known))])
        embedded = representation(model, "fp32")(self.task.pixels[positions])
        save_map(embedded, self.task.labels[positions], self.task.classes, self.folder / "map.png")


def save_grid(rows: Sequence[Tensor], path: Path) -> None:
    """Write rows of (n, C, S, S) images in [0, 1], one row under the other."""
    from PIL import Image

    size = rows[0].shape[-1]
    zoom = max(1, -(-_ZOOM // size))
    tiles = [torch.cat(list(row.clamp(0, 1).cpu()), dim=2) for row in rows]  # (C, S, n S) each
    pixels = torch.cat(tiles, dim=1).mul(255).round().byte().permute(1, 2, 0).numpy()
    pixels = pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    with beside(path) as temporary:
        image.save(temporary, "PNG")


def save_channels(backbone: Split, images: Tensor, path: Path) -> None:
    """Write (n, 3, S, S) images above the three channels that the encoders get; 0 is grey."""
    with torch.inference_mode():
        seen = torch.cat(backbone.channels(images.to(devices.device())), dim=1).cpu()
    channels = (seen / 6 + 0.5).clamp(0, 1)  # three deviations each way
    rows = [channels[:, [k]].expand(-1, 3, -1, -1) for k in range(3)]
    save_grid([images, *rows], path)


def save_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Plot every figure of the history over the steps, one panel each."""
    from matplotlib.figure import Figure

    names = sorted({key for line in history for key in line} - {"step", "seconds"})
    names.sort(key=lambda name: name != "loss")
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(3.2 * across, 2.2 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        points = [(line["step"], line[name]) for line in history if name in line]
        panel.plot(*zip(*points, strict=True), marker=".")
        panel.set_title(name.replace("_", " "), fontsize=9)
        panel.tick_params(labelsize=7)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    with beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def save_map(features: Tensor, labels: Tensor, classes: Sequence[str], path: Path) -> None:
    """Plot (N, D) features in the plane by t-SNE, coloured by label."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    points = features.double()
    points = (points - points.mean(dim=0)) / points.std().clamp_min(1e-12)
    if len(points) < 5 or not points.any():  # all features are equal
        return
    perplexity = min(30.0, (len(points) - 1) / 3)
    placed = TSNE(perplexity=perplexity, init="random", random_state=0).fit_transform(
        points.float().numpy()
    )
    figure = Figure(figsize=(6, 5), layout="constrained")
    panel = figure.subplots()
    unknown = labels.numpy() < 0
    panel.scatter(placed[unknown, 0], placed[unknown, 1], s=4, color="0.8", linewidths=0)
    colors = colormaps["tab20"]
    for number in np.unique(labels.numpy()[~unknown]):
        own = labels.numpy() == number
        x, y = placed[own, 0], placed[own, 1]
        name = classes[number] if len(classes) <= 20 else None
        panel.scatter(x, y, s=12, color=colors(number % 20), label=name, linewidths=0)
    if not unknown.all() and len(classes) <= 20:
        panel.legend(fontsize=7, markerscale=1.5, loc="center left", bbox_to_anchor=(1, 0.5))
    panel.set_xticks([])
    panel.set_yticks([])
    with beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
