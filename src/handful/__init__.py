"""handful: train the best image classifier from few labels, and estimate its accuracy."""

from typing import TYPE_CHECKING, Any

from handful._version import __version__ as __version__

__all__ = [
    "Boxes",
    "Classifier",
    "HandfulError",
    "ImageSet",
    "Predictions",
    "Run",
    "embed",
    "fit",
    "label",
    "load",
    "open_run",
]

if TYPE_CHECKING:
    from handful.data.boxes.options import Boxes
    from handful.data.imageset import ImageSet
    from handful.data.sources import load
    from handful.errors import HandfulError
    from handful.labeling.notebook import label
    from handful.pipeline.embed import embed
    from handful.pipeline.fit import fit
    from handful.pipeline.predictions import Predictions
    from handful.pipeline.run import Run, open_run
    from handful.pipeline.sklearn import Classifier

_HOME = {
    "Boxes": "handful.data.boxes.options",
    "Classifier": "handful.pipeline.sklearn",
    "HandfulError": "handful.errors",
    "ImageSet": "handful.data.imageset",
    "load": "handful.data.sources",
    "label": "handful.labeling.notebook",
    "embed": "handful.pipeline.embed",
    "fit": "handful.pipeline.fit",
    "Predictions": "handful.pipeline.predictions",
    "Run": "handful.pipeline.run",
    "open_run": "handful.pipeline.run",
}


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that `import handful` does not import torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names, and only those."""
    return sorted(__all__)
